"""Says what the public package makes of files of a profile. Executed by its Python: questions in, answers out.

{"config": TEXT}                                       the values of config.yaml, or why it is refused
{"template": PATH, "config": TEXT, "options": {},
 "environment": {}, "account": NAME}                   what is rendered, or why not
    {"name": NAME, "paths": {}, "environment": {}}         the folder and the log of that user endpoint
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import sys
from pathlib import Path
from typing import Any

from globus_compute_endpoint.endpoint.config import utils  # type: ignore[import-not-found]
from globus_compute_endpoint.endpoint.identity_mapper import MappedPosixIdentity  # type: ignore[import-not-found]
from globus_compute_endpoint.logging_config import ensure_paths  # type: ignore[import-not-found]


def main() -> None:
    """Answers what comes on standard input."""
    logging.disable()
    json.dump([_answer(question) for question in json.load(sys.stdin)], sys.stdout, default=str)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        if "paths" in question:
            return _paths(question)
        return _rendered(question) if "template" in question else _values(question)
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"}


def _values(question: dict[str, Any]) -> dict[str, Any]:
    config = utils.load_config_yaml(question["config"])
    return {name.removeprefix("_"): value for name, value in vars(config).items() if name != "source_content"}


def _paths(question: dict[str, Any]) -> dict[str, Any]:
    os.environ.clear()
    os.environ.update(question["environment"])
    log = ensure_paths(question["name"], question["paths"])
    return {"directory": os.environ["GLOBUS_COMPUTE_ENDPOINT_DIR"], "log": str(log)}


def _rendered(question: dict[str, Any]) -> dict[str, Any]:
    template = Path(question["template"])
    os.environ.clear()
    os.environ.update(question["environment"])
    identity = MappedPosixIdentity(pwd.getpwnam(question["account"]), [], "00000000-0000-0000-0000-000000000001")
    config = utils.load_config_yaml(question["config"])
    text = utils.load_user_config_template(template)
    return {"text": utils.render_config_user_template(config, text, template, identity, None, question["options"])}


if __name__ == "__main__":
    main()
