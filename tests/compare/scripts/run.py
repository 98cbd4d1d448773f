"""The client scripts of the comparison as one program: what users do with the unmodified SDK, each one a function.

    python PROGRAM ENDPOINT-ID ENGINE USER-ENDPOINT-CONFIG [NAME...]

runs all, or the named ones, at one endpoint, side by side in threads, and prints one JSON object of their outcomes.
The scripts are in the other files here, one for each subject.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.compare.scripts.outcome import outcome_of
from tests.compare.scripts.script import SCRIPTS, TIMEOUT, TIMEOUT_OF_KILLED, Script, Site

HERE = Path(__file__).parent
SUBJECTS = (
    "values",
    "functions",
    "exceptions",
    "unsendable",
    "surroundings",
    "shell_functions",
    "serialization",
    "calls",
)
HEAD = f"""\
import sys
sys.path.insert(0, {str(HERE.parents[2])!r})
from tests.compare.scripts.run import main
"""
AT_ONCE = 24


def all_scripts() -> dict[str, Script]:
    """By their names, to be looked at and not to be run."""
    for subject in SUBJECTS:
        importlib.import_module(f"tests.compare.scripts.{subject}")
    return SCRIPTS


def whole_program() -> str:
    """The text of one file, as a user's own: functions of `__main__` are sent otherwise than those of a module, and the
    source of them is looked for in its file."""
    return "\n".join([HEAD, *((HERE / f"{subject}.py").read_text() for subject in SUBJECTS), "main()"])


def main() -> None:
    endpoint_id, engine, config, *names = sys.argv[1:]
    site = Site(endpoint_id, engine, json.loads(config))
    chosen = [each for each in SCRIPTS.values() if engine in each.engines and (not names or each.name in names)]
    outcomes = {}
    for kills in (False, True):
        site.timeout = TIMEOUT_OF_KILLED if kills else TIMEOUT
        group = [each for each in chosen if each.kills is kills]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = pool.map(lambda each: outcome_of(lambda: each.run(site)), group)
            outcomes |= {each.name: outcome for each, outcome in zip(group, results, strict=True)}
    print(json.dumps(outcomes), flush=True)
    os._exit(0)  # the SDK would wait for results that have not come
