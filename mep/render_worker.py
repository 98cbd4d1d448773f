"""Renders the admin's template with a user's options. A program of its own: `python -m mep.render_worker`.

User options are hostile until proven otherwise: a schema's pattern may backtrack for ever, a template's loop may be
driven by an option. So this runs as an account that owns nothing, without credentials, with limits on memory and
output, and `renderer` kills it when a request takes too long. It serves one request after the other on descriptor 0,
a socket: each a JSON object on a line, answered by one on a line.

Request:  {"template", "templates", "schema", "options", "runtime", "identity", "config", "environment"}
Answer:   {"config": text}, or {"stage": "options" or "template", "admin": text, "user": text}
"""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Mapping
from typing import Any

import jinja2
import jsonschema
import yaml

from mep.templating import encode, environment

_MAX_MEMORY = 512 * 2**20
_MAX_CONFIG = 2**20
_RESERVED = ("_GC", "parent_config", "mapped_identity", "user_runtime")


class _Wrong(Exception):
    """The request ends here. Arguments: stage, text for the admin, text for the user."""


def main() -> None:
    """Serves requests until the other end of the socket closes."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with socket.socket(fileno=0) as connection, connection.makefile("rwb") as stream:
        while line := stream.readline():
            stream.write(json.dumps(_answer(line)).encode() + b"\n")
            stream.flush()


def _answer(line: bytes) -> dict[str, str]:
    try:
        return {"config": _render(json.loads(line))}
    except _Wrong as e:
        stage, admin, user = e.args
        return {"stage": stage, "admin": admin[:2000], "user": user[:2000]}
    except (MemoryError, RecursionError) as e:
        reason = f"the options or the template need too much memory or are nested too deeply ({type(e).__name__})"
        return {"stage": "options", "admin": reason, "user": f"Your user_endpoint_config is too large: {reason}."}


def _render(request: Mapping[str, Any]) -> str:
    options = request["options"]
    _check_options(options, request["schema"])
    reserved = {
        "parent_config": request["config"],
        "mapped_identity": request["identity"],
        "user_runtime": encode(request["runtime"]),
        "env": request["environment"],
    }
    text = _fill_in(request["templates"], request["template"], {**encode(options), **reserved, "_GC": reserved})
    _check_config(text, request["template"])
    return text


def _check_options(options: Mapping[str, Any], schema: Mapping[str, Any] | None) -> None:
    for name in _RESERVED:
        if name in options:
            reason = f"{name!r} is a reserved name and cannot be given in user_endpoint_config"
            raise _Wrong("options", reason, f"{reason}.")
    if schema is None:
        return
    validator = jsonschema.validators.validator_for(schema)(schema)
    error = jsonschema.exceptions.best_match(validator.iter_errors(options))
    if error is not None:
        reason = f"user_endpoint_config: {error.json_path}: {error.message}"
        raise _Wrong("options", f"options break the schema: {reason}", f"Not accepted by this endpoint: {reason}")


def _fill_in(templates: Mapping[str, str], name: str, variables: Mapping[str, Any]) -> str:
    try:
        return environment(templates).get_template(name).render(variables)
    except jinja2.UndefinedError as e:
        user = f"An option is missing from user_endpoint_config: {e.message}."
        raise _Wrong("template", f"{name}: {e.message} (no such option was given)", user) from None
    except jinja2.TemplateSyntaxError as e:
        raise _broken(e.filename or name, f"line {e.lineno}: {e.message}") from None
    except (MemoryError, RecursionError):
        raise
    except Exception as e:  # noqa: BLE001 - a template can raise anything
        raise _broken(name, f"{type(e).__name__}: {e}") from None


def _broken(name: str, reason: str) -> _Wrong:
    user = "This endpoint's template cannot be rendered with your user_endpoint_config; please tell its administrators."
    return _Wrong("template", f"{name}: {reason}", user)


def _check_config(text: str, name: str) -> None:
    """The UEP reads it again; here a broken template is noticed before anything has been started."""
    if len(text) > _MAX_CONFIG:
        raise _broken(name, f"renders to {len(text)} characters; the limit is {_MAX_CONFIG}")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise _broken(name, f"does not render to YAML: {' '.join(str(e).split())}") from None
    if not isinstance(config, dict) or "engine" not in config:
        raise _broken(name, "does not render to a configuration with an `engine`")
    if "high_assurance" in config:
        raise _broken(name, "`high_assurance` belongs in config.yaml, not in the template")


if __name__ == "__main__":
    main()
