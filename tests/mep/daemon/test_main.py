"""What the process that is root for months has loaded, and what it has not."""

from __future__ import annotations

import sys

from tests.mep.loading import loaded_by, rooms

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
OF_THE_SYSTEM = {"ssl", "_ssl", "_hashlib", "bz2", "_bz2", "lzma", "_lzma"}
"""Modules of the standard library with a library of C behind them that nothing here needs."""
OURS = {"mep", "wire"}
"""Not `identity`: who looks at what strangers wrote, and at the site's patterns, has no rights."""


def test_the_manager_loads_no_command_line_no_client_no_parser_and_no_reader() -> None:
    modules = loaded_by("mep.daemon.serve")
    loaded = {name.split(".")[0] for name in modules}
    assert not loaded & (OTHERS | OF_THE_SYSTEM)
    assert not loaded - sys.stdlib_module_names - OURS
    assert not rooms(modules) & {"reader", "registration", "cli", "renderer"}


def test_what_is_done_before_and_beside_it_loads_no_more_than_it_must() -> None:
    for program in ("mep.daemon.main", "mep.daemon.anew"):
        loaded = {name.split(".")[0] for name in loaded_by(program)}
        assert not loaded & (OTHERS | {"identity"}), program
