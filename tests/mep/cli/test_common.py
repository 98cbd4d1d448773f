"""What the commands share: how they fail, and what the program loads before it knows which command it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.cli import inspect
from mep.cli.common import choose_paths, load, paths, profile_directory
from mep.daemon.failed import Failed, exit_codes, profile_name
from mep.profile.errors import ConfigError
from mep.registration.errors import RegistrationError
from tests.mep.loading import loaded_by, rooms

ID = "ee9d42e2-85b1-487f-a350-9712bb321d5f"


@pytest.fixture(autouse=True)
def chosen(tmp_path: Path) -> Iterator[None]:
    """As with --config-dir; taken back afterwards."""
    choose_paths(tmp_path)
    yield
    choose_paths(None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(Path("/etc/mep/prod/config.yaml"), ["wrong"]), os.EX_CONFIG),
        (RegistrationError(os.EX_NOPERM, "not logged in"), os.EX_NOPERM),
        (RegistrationError(os.EX_TEMPFAIL, "cannot reach the service"), os.EX_TEMPFAIL),
    ],
)
def test_what_an_admin_can_mend_ends_with_its_text_and_code(error: Exception, code: int) -> None:
    with pytest.raises(Failed) as caught, exit_codes():
        raise error
    assert (str(caught.value), caught.value.exit_code) == (str(error), code)
    assert caught.value.__suppress_context__


def test_a_defect_stays_one() -> None:
    with pytest.raises(ZeroDivisionError), exit_codes():
        raise ZeroDivisionError


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    assert paths().config == tmp_path
    with pytest.raises(Failed, match="mep configure prod") as caught:
        load(profile_directory("prod"))
    assert caught.value.exit_code == os.EX_CONFIG


def test_a_name_that_is_none_is_wrong_usage() -> None:
    with pytest.raises(Failed, match="cannot name an endpoint") as caught:
        profile_directory("../prod")
    assert caught.value.exit_code == os.EX_USAGE


def test_an_id_means_one_profile(tmp_path: Path) -> None:
    """`mep delete` takes ids, too; and a folder that was copied has the id of the first."""
    for name in ("first", "copy"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "endpoint.json").write_text(f'{{"endpoint_id": "{ID}"}}')
    with pytest.raises(Failed, match=f"copy, first are all registered as endpoint {ID}") as caught:
        profile_name(tmp_path, ID)
    assert caught.value.exit_code == os.EX_USAGE
    (tmp_path / "copy" / "endpoint.json").unlink()
    assert profile_name(tmp_path, ID) == "first"


@pytest.mark.parametrize(
    ("text", "remedy"), [(r'{"A": "\d"}', "a backslash is written twice"), ("{A}", "correct the JSON")]
)
def test_a_slip_in_json_is_told_with_its_remedy(text: str, remedy: str) -> None:
    with pytest.raises(Failed, match=f"--options: not JSON: .*; {remedy}"):
        inspect._given_options(text)


def test_the_program_loads_what_a_command_needs_only_with_the_command() -> None:
    loaded = loaded_by("mep.cli.main")
    assert rooms(loaded) == {"cli", "daemon", "profile"}
    assert not loaded & {"yaml", "jinja2", "jsonschema", "globus_sdk", "pika", "identity"}
