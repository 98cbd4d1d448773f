"""What the process that is root for months has loaded, and what it has not."""

from __future__ import annotations

import sys

from tests.mep.loading import loaded_by

OTHERS = {
    "typer",
    "pydantic",
    "globus_sdk",
    "requests",
    "urllib3",
    "jwt",
    "click",
    "rich",
    "yaml",
    "jinja2",
    "jsonschema",
    "cryptography",
}
"""A command line's, the service's client's, the parsers of the profile's files, what reads credentials: each is in a
process of its own."""
PACKAGES = {"jeepney", "setproctitle"}
"""What there is still of other people's."""
OURS = {"mep", "identity", "wire"}


def test_the_daemon_loads_no_command_line_no_client_and_no_parser() -> None:
    loaded = {name.split(".")[0] for name in loaded_by("mep.daemon.main")}
    assert not loaded & OTHERS
    foreign = {name for name in loaded - sys.stdlib_module_names - OURS if not name.startswith("_")}
    assert foreign <= PACKAGES, foreign - PACKAGES
