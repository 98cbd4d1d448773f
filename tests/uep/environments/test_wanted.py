"""The block `python`: what it takes, and when tasks need an environment."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import pytest

from uep.config import ConfigError
from uep.environments.wanted import Wanted, needed, read

OURS = platform.python_version()
SDK = metadata.version("globus-compute-sdk")
OTHER = "3.10.4" if not OURS.startswith("3.10.") else "3.11.4"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", OURS)
    monkeypatch.setenv("GC_USER_SDK_VERSION", SDK)


@pytest.mark.parametrize(
    ("python", "sdk"),
    [
        (OURS, SDK),
        (OURS, "3.16.1"),
        (f"{OURS.rpartition('.')[0]}.99", f"{SDK.partition('.')[0]}.0.0"),
        (None, None),
        ("3\n", "x; y"),
    ],
)
def test_nothing_is_made_where_the_endpoints_own_suits(
    python: str | None, sdk: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same minor version does, with an SDK that ours reads; so does what the client has not said, or not well."""
    for name, value in (("GC_USER_PYTHON_VERSION", python), ("GC_USER_SDK_VERSION", sdk)):
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    assert needed(read({})) is None


def test_a_client_of_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", OTHER)
    need = needed(Wanted())
    assert need is not None
    assert need.python == OTHER.rpartition(".")[0]
    assert f"globus-compute-sdk=={SDK}\nparsl=={metadata.version('parsl')}\n" in need.packages
    assert needed(read({"version": "endpoint"})) is None


@pytest.mark.parametrize("sdk", ["2.28.0", f"{int(SDK.partition('.')[0]) + 1}.0.0"])
def test_a_client_of_another_sdk(sdk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_USER_SDK_VERSION", sdk)
    need = needed(Wanted())
    assert need is not None
    assert (need.python, need.sdk) == (OURS.rpartition(".")[0], sdk)
    assert needed(read({"sdk": "endpoint"})) is None
    assert str(needed(read({"sdk": "2.9.9"}))).endswith("with globus-compute-sdk 2.9.9")


def test_a_python_in_which_no_worker_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", "3.9.18")
    with pytest.raises(ConfigError, match=r"to have Python 3\.9, and workers need 3\.10.*python_version"):
        needed(Wanted())


@pytest.mark.parametrize(
    ("sources", "lines"),
    [
        ({}, []),
        ({"index": "https://pypi.example.org/simple"}, ["--index-url https://pypi.example.org/simple"]),
        ({"wheels": "/opt/wheels"}, ["--no-index", "--find-links /opt/wheels"]),
        ({"index": "https://x/simple", "wheels": "/w"}, ["--index-url https://x/simple", "--find-links /w"]),
    ],
)
def test_where_packages_come_from(sources: dict[str, str], lines: list[str]) -> None:
    """A folder alone is all there is: nothing on the internet is asked."""
    need = needed(read({**sources, "requirements": "numpy"}))
    assert need is not None
    told = need.packages.splitlines()
    assert told[: len(lines)] == lines
    assert (len(told), told[-1]) == (len(lines) + 3, "numpy")
    assert str(need).endswith("and the requirements")


LINES = ["numpy>=2", "# why", "", "pandas; python_version<'4'"]


@pytest.mark.parametrize("requirements", ["\r\n".join(LINES), LINES])
def test_requirements_are_a_files_text_or_its_lines(requirements: Any) -> None:
    assert read({"requirements": requirements}).requirements == "\n".join(LINES)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"versions": "3.12"}, "unknown key in python 'versions', did you mean 'version'"),
        ({"version": 3.12}, r"python.version: expected client, endpoint, or a version in quotes, as '3.12', got 3.12"),
        ({"version": "3.12; reboot"}, "python.version: expected client"),
        ({"version": "2.7"}, "python.version: expected client"),
        ({"version": "3.12\n"}, "python.version: expected client"),
        ({"sdk": "4 --index-url x"}, "python.sdk: expected client"),
        ({"requirements": 7}, "expected the text of a requirements file, or a list"),
        ({"requirements": ["numpy", 7]}, "expected the text of a requirements file, or a list"),
        ({"requirements": "numpy\n\x1b[2J"}, "python.requirements: line 2 has a character that cannot be printed"),
        ({"requirements": ["a\nb"]}, "line 1 has a character that cannot be printed"),
        ({"requirements": "a" * 65537}, "more than 65536 characters"),
        ({"index": "https://x/\n--trusted-host x"}, "python.index: expected an address or a path without spaces"),
        ({"wheels": "/a b"}, "python.wheels: expected an address or a path without spaces"),
        ({"search": "opt/python"}, "python.search: expected an absolute path"),
        ({"folder": "environments"}, "python.folder: expected an absolute path"),
        ({"timeout": "long"}, "python.timeout: expected seconds"),
        ({"timeout": True}, "python.timeout: expected seconds"),
    ],
)
def test_a_wrong_block(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(block)
