"""The profile that was accepted last: kept as it was, readable by root only, and good for one endpoint."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

import mep.reader.accepted
from mep.cli import checks
from mep.profile.accepted import save
from mep.profile.errors import ConfigError
from mep.profile.paths import Paths
from mep.reader import accepted, loader

ENDPOINT = str(uuid.UUID(int=5))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_all_of_a_profile_is_kept(profile_directory: Path, state: Path) -> None:
    (profile_directory / "part.j2").write_text("# a part\n")
    profile = loader.load(profile_directory)
    save(state, profile, ENDPOINT)
    for path in profile_directory.iterdir():
        path.write_text("{% broken")
    found = accepted.find(state, "prod", ENDPOINT)
    assert found is not None and found.is_of(profile)
    loaded = accepted.load(found, profile_directory)
    assert loaded == profile and loaded.digest == profile.digest


def test_elsewhere_kept_files_are_kept_too(profile_directory: Path, state: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    for name in ("user_config_template.yaml.j2", "user_config_schema.json", "mapping.json"):
        (profile_directory / name).rename(tmp_path / "elsewhere" / name)
    (profile_directory / "config.yaml").write_text(
        f"user_config_template_path: {tmp_path}/elsewhere/user_config_template.yaml.j2\n"
        f"user_config_schema_path: {tmp_path}/elsewhere/user_config_schema.json\n"
        f"identity_mapping_config_path: {tmp_path}/elsewhere/mapping.json\n"
    )
    profile = loader.load(profile_directory)
    save(state, profile, ENDPOINT)
    for path in (tmp_path / "elsewhere").iterdir():
        path.unlink()
    found = accepted.find(state, "prod", ENDPOINT)
    assert found is not None and accepted.load(found, profile_directory) == profile


def test_it_is_roots_alone(profile_directory: Path, state: Path) -> None:
    state.mkdir(mode=0o700)
    old = os.umask(0)
    try:
        save(state, loader.load(profile_directory), ENDPOINT)
    finally:
        os.umask(old)
    (file,) = (state / "accepted").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]


def test_another_endpoint_of_the_name_has_none(profile_directory: Path, state: Path) -> None:
    save(state, loader.load(profile_directory), ENDPOINT)
    assert accepted.find(state, "prod", str(uuid.UUID(int=6))) is None
    assert accepted.find(state, "prod", None) is None
    assert accepted.find(state, "other", ENDPOINT) is None


def test_check_names_the_other_endpoint(profile_directory: Path, state: Path, root: None) -> None:
    save(state, loader.load(profile_directory), ENDPOINT)
    other = str(uuid.UUID(int=6))
    (profile_directory / "endpoint.json").write_text(json.dumps({"endpoint_id": other}))
    paths = Paths(profile_directory.parent, state, profile_directory, None)
    (line,) = [each for each in checks.lines(profile_directory, paths, files_only=True) if each.verdict == "FAIL"]
    assert ENDPOINT in line.text and other in line.text


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 1, "nonsense": 2}', "\udc80"])
def test_what_is_no_copy(profile_directory: Path, state: Path, content: str) -> None:
    save(state, loader.load(profile_directory), ENDPOINT)
    (state / "accepted" / "prod.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"accepted/prod\.json: "):
        accepted.find(state, "prod", ENDPOINT)


def test_the_copy_of_a_later_version_does_not_count(profile_directory: Path, state: Path) -> None:
    save(state, loader.load(profile_directory), ENDPOINT)
    file = state / "accepted" / "prod.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    assert accepted.find(state, "prod", ENDPOINT) is None


def link_elsewhere(folder: Path) -> None:
    target = folder.with_name("elsewhere")
    folder.rename(target)
    target.chmod(0o777)
    folder.symlink_to(target)


@pytest.mark.parametrize("spoil", [lambda folder: folder.chmod(0o777), link_elsewhere], ids=["open", "link"])
def test_a_folder_that_others_may_change(profile_directory: Path, state: Path, spoil: Callable[[Path], None]) -> None:
    profile = loader.load(profile_directory)
    save(state, profile, ENDPOINT)
    spoil(state / "accepted")
    with pytest.raises(ConfigError, match="others than root may write"):
        save(state, profile, ENDPOINT)
    with pytest.raises(ConfigError, match="others than root may write"):
        accepted.find(state, "prod", ENDPOINT)


def test_a_failed_write_leaves_the_old_one(
    profile_directory: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = loader.load(profile_directory)
    save(state, profile, ENDPOINT)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mep.reader.accepted.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(state, profile, str(uuid.UUID(int=6)))
    assert [path.name for path in (state / "accepted").iterdir()] == ["prod.json"]
    assert accepted.find(state, "prod", ENDPOINT) is not None
