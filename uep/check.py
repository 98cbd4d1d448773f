"""`mep-uep --check`: could an endpoint start with these configurations? The manager asks, before they are in force.

    standard input    JSON: a list of configurations, each the text that a hand-over would hold
    standard output   JSON: for each {"problem": text or null, "notes": [text, ...], "script": text}

script: with `--scripts`, what would be submitted to a batch system for a block; else, and without one, it is empty.

The configuration is read, and the engine made, by what an endpoint itself calls; nothing is started. It runs under an
account without rights, with the environment that an endpoint would have.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from uep import config
from uep.engines.base import Engine, EngineContext
from uep.engines.registry import make_engine
from uep.environments import pythons
from uep.environments.wanted import read

_NO_ENDPOINT = "00000000-0000-0000-0000-000000000000"


def main(*, scripts: bool = False) -> int:
    """Answers on standard output, where nothing else may write; what libraries print goes to standard error."""
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        texts = json.load(sys.stdin)
        found = [check(text, scripts=scripts) for text in texts]
    except (ValueError, TypeError):
        return os.EX_DATAERR
    with os.fdopen(answers, "w") as file:
        json.dump(found, file)
    return os.EX_OK


def check(text: str, *, scripts: bool = False) -> dict[str, Any]:
    """What keeps an endpoint from starting with this configuration, or None; and what else is worth knowing of it."""
    notes: list[str] = []
    script = ""
    try:
        settings = config.parse(text)
        with tempfile.TemporaryDirectory(prefix="mep-check-") as folder:
            place = EngineContext(_NO_ENDPOINT, Path(folder), settings.high_assurance)
            engine = make_engine(settings.engine, place, settings.python)
            notes = [*engine.check(), *(pythons.notes(read(settings.python)) if settings.python else ())]
            script = _script(engine, notes) if scripts else ""
    except config.ConfigError as e:
        return {"problem": str(e), "notes": notes, "script": script}
    except Exception as e:  # noqa: BLE001 - whatever it is, an endpoint would meet it
        return {"problem": f"the engine cannot be made: {type(e).__name__}: {e}", "notes": notes, "script": script}
    return {"problem": None, "notes": notes, "script": script}


def _script(engine: Engine, notes: list[str]) -> str:
    try:
        return engine.job_script()
    except Exception as e:  # noqa: BLE001 - whatever a provider finds; the endpoint would tell its user
        notes.append(f"what would be submitted cannot be shown: {type(e).__name__}: {e}")
        return ""
