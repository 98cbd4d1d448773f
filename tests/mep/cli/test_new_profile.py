"""`mep configure`: what it makes can be loaded, whatever it was told; and it changes nothing that exists."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml

import templates
from lab.manager import MEP
from mep.cli import new_profile
from mep.cli.new_profile import NotMade
from mep.monitor.containment import unit_names
from mep.profile import profile
from mep.profile.config import ManagerConfig
from mep.profile.keys import declared
from mep.reader import loader
from uep import config as uep_config


@pytest.fixture(autouse=True)
def packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The templates are `mep.templates` only in a package that has been built."""
    monkeypatch.setitem(sys.modules, "mep.templates", templates)


def test_a_fresh_profile_can_be_loaded(tmp_path: Path) -> None:
    new_profile.make(tmp_path / "prod", {}, None, None)
    assert {path.name for path in (tmp_path / "prod").iterdir()} == set(new_profile.USES)
    loaded = loader.load(tmp_path / "prod")
    assert loaded.config.identity_mapping_config_path == tmp_path / "prod" / profile.MAPPING
    assert loaded.config.display_name is None
    assert loaded.config.email is None
    assert loaded.schema is not None
    assert [path.name for path in tmp_path.iterdir()] == ["prod"], "nothing else is left"


def test_modes(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        new_profile.make(tmp_path / "new" / "prod", {}, None, None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "new" / "prod").stat().st_mode) == 0o755
    for path in (tmp_path / "new" / "prod").iterdir():  # who may do what is root's to know
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("umask", [0o077, 0o002, 0o000])
def test_it_can_be_loaded_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        new_profile.make(tmp_path / "etc" / "mep" / "prod", {}, None, None)
    finally:
        os.umask(before)
    assert loader.load(tmp_path / "etc" / "mep" / "prod").name == "prod"


@pytest.mark.parametrize(
    "name",
    [
        "Cluster",
        'a "quoted" \\ name',
        "line\nbreak\ttab",
        "é: ü # ß",
        "{{ jinja }}",
        "- [",
        "yes",
        "5",
        "null",
        "@MAPPING",
        "\x7f\x1b",
        "\u2028 \ufeff",
        "Cluster 🚀",
        "@EMAIL@",
    ],
)
def test_any_name_is_read_back(tmp_path: Path, name: str) -> None:
    new_profile.make(tmp_path / "prod", {}, name, f"{name}@example.org")
    loaded = loader.load(tmp_path / "prod")
    assert (loaded.config.display_name or "") == name
    assert loaded.config.email == f"{name}@example.org"
    name.encode()


def test_a_strange_folder_is_read_back(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\ é: #'
    folder.mkdir(mode=0o755)
    new_profile.make(folder / "prod", {}, None, None)
    assert loader.load(folder / "prod").config.identity_mapping_config_path == folder / "prod" / profile.MAPPING


@pytest.mark.parametrize("file", sorted(new_profile.USES.keys() - {profile.CONFIG}))
def test_a_given_file_is_taken_as_it_is(tmp_path: Path, file: str) -> None:
    given = tmp_path / "given"
    given.write_text("# ünchanged @DISPLAY_NAME@\n")
    new_profile.make(tmp_path / "prod", {file: given}, "x", None)
    assert (tmp_path / "prod" / file).read_text() == given.read_text()
    new_profile.make(tmp_path / "other", {file: None}, "x", None)
    assert "ünchanged" not in (tmp_path / "other" / file).read_text()


@pytest.mark.parametrize("kind", ["missing", "folder", "not UTF-8"])
def test_a_given_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    given = tmp_path / "given"
    if kind == "folder":
        given.mkdir()
    elif kind == "not UTF-8":
        given.write_bytes(b"\xff")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(NotMade, match="cannot be read") as caught:
        new_profile.make(tmp_path / "prod", {profile.TEMPLATE: given}, None, None)
    assert caught.value.exit_code == os.EX_NOINPUT
    assert str(given) in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["profile", "empty folder", "file", "link", "link to nothing", "link to itself"])
def test_what_exists_is_left_alone(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "prod"
    if kind == "profile":
        new_profile.make(directory, {}, None, None)
        (directory / "config.yaml").write_text("mine")
    elif kind == "empty folder":
        directory.mkdir()
    elif kind == "file":
        directory.write_text("mine")
    elif kind == "link":
        (tmp_path / "target").mkdir()
        directory.symlink_to("target")
    else:
        directory.symlink_to("nosuch" if kind == "link to nothing" else "prod")
    before, status = sorted(tmp_path.rglob("*")), directory.lstat()
    with pytest.raises(NotMade) as caught:
        new_profile.make(directory, {}, None, None)
    assert caught.value.exit_code == os.EX_CANTCREAT
    assert str(directory) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    after = directory.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (status.st_ino, status.st_mode, status.st_mtime_ns)
    if kind == "profile":
        assert (directory / "config.yaml").read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotMade, match="cannot be made: Not a directory") as caught:
        new_profile.make(tmp_path / "file" / "prod", {}, None, None)
    assert caught.value.exit_code == os.EX_CANTCREAT


def test_several_at_once_make_one(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "MEP_CONFIG_DIR": str(tmp_path)}
    makers = [
        subprocess.Popen(
            [MEP, "configure", "prod", "--display-name", f"maker {number}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]
    said = [maker.communicate()[1].decode() for maker in makers]
    codes = [maker.returncode for maker in makers]
    assert sorted(codes) == [0, *[os.EX_CANTCREAT] * 3], said
    made = yaml.safe_load((tmp_path / "prod" / "config.yaml").read_text())
    assert made["display_name"] == f"maker {codes.index(0)}"
    assert [path.name for path in tmp_path.iterdir()] == ["prod"]
    assert len(list((tmp_path / "prod").iterdir())) == len(new_profile.USES)


def test_an_empty_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotMade, match="empty name"):
        new_profile.make(tmp_path / "prod", {}, "", None)
    assert not (tmp_path / "prod").exists()


def test_options_are_put_into_a_configuration_that_is_given(tmp_path: Path) -> None:
    given = tmp_path / "core.yaml"
    given.write_text("# ours\ndisplay_name: Old\namqp_port: 443\n")
    new_profile.make(tmp_path / "prod", {profile.CONFIG: given}, "New", "a@example.org")
    text = (tmp_path / "prod" / "config.yaml").read_text()
    assert "# ours" in text
    assert yaml.safe_load(text) == {
        "display_name": "New",
        "amqp_port": 443,
        "email": "a@example.org",
        "identity_mapping_config_path": str(tmp_path / "prod" / profile.MAPPING),
        "public": True,
    }
    assert loader.load(tmp_path / "prod").config.public


def test_what_a_given_configuration_says_is_kept_unless_an_option_says_otherwise(tmp_path: Path) -> None:
    given, mapping = tmp_path / "core.yaml", tmp_path / "map.json"
    mapping.write_text(new_profile._default_text(profile.MAPPING, False))
    given.write_text(f"public: false\nidentity_mapping_config_path: {mapping}\n")
    new_profile.make(tmp_path / "a", {profile.CONFIG: given}, None, None)
    assert (tmp_path / "a" / "config.yaml").read_text() == given.read_text()
    new_profile.make(tmp_path / "b", {profile.CONFIG: given, profile.MAPPING: mapping}, None, None)
    loaded = loader.load(tmp_path / "b")
    assert loaded.config.identity_mapping_config_path == tmp_path / "b" / profile.MAPPING
    assert not loaded.config.public


def test_what_a_file_with_an_engine_says_of_the_manager_is_where_its_comment_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1234)
    given = tmp_path / "engine.yaml"
    given.write_text("display_name: Workshop\nengine: {type: ThreadPoolEngine}\n")
    new_profile.make(tmp_path / "mine", {profile.CONFIG: given}, None, None)
    text = (tmp_path / "mine" / "config.yaml").read_text()
    assert 'shown by the service.\ndisplay_name: "Workshop"\n' in text
    assert text.count("display_name:") == 1


def test_each_key_of_a_file_with_an_engine_comes_where_it_is_known(tmp_path: Path) -> None:
    """That of psik has `public`, which no user endpoint knows."""
    keys = dict.fromkeys(declared(ManagerConfig)) | {"public": False, "idle_heartbeats_soft": 3}
    given = tmp_path / "engine.yaml"
    given.write_text(yaml.safe_dump({**keys, "engine": {"type": "ThreadPoolEngine"}}))
    new_profile.make(tmp_path / "made", {profile.CONFIG: given}, None, None)
    template = yaml.safe_load((tmp_path / "made" / profile.TEMPLATE).read_text())
    assert uep_config.parse(yaml.safe_dump(template)).idle.soft == 3
    assert not loader.load(tmp_path / "made").config.public
    assert "public: false" in (tmp_path / "made" / profile.CONFIG).read_text()


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-29",
        "&a [*a]",
        '"ü: #"',
        "{a: [1, 2.5, true, null], b: {2026-11-29: x}}",
        "|\n  two\n\n  lines",
        "\n  a: 1\n\n  # why\n  b: 2\n# why\n  c: 3\n",
        "\n- a\n\n- b",
        "[\n  a,\n  b,\n]",
    ],
)
def test_any_value_comes_over(written: str, tmp_path: Path) -> None:
    """What it is good for is said of config.yaml as always; `configure` ended in a traceback."""
    given = tmp_path / "engine.yaml"
    given.write_text(f"display_name: {written}\n\n# ours\nengine: {{type: ThreadPoolEngine}}\n")
    new_profile.make(tmp_path / "made", {profile.CONFIG: given}, None, None)
    assert (tmp_path / "made" / profile.TEMPLATE).read_text().lstrip() == "# ours\nengine: {type: ThreadPoolEngine}\n"
    text = (tmp_path / "made" / profile.CONFIG).read_text()
    assert repr(yaml.safe_load(text)["display_name"]) == repr(yaml.safe_load(given.read_text())["display_name"])


def test_an_ordinary_user_reads_where_the_environment_of_their_tasks_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_profile.make(tmp_path / "prod", {}, None, None)
    monkeypatch.setattr("os.geteuid", lambda: 1234)
    new_profile.make(tmp_path / "mine", {}, None, None)
    of_root, own = (" ".join((tmp_path / name / profile.ENVIRONMENT).read_text().split()) for name in ("prod", "mine"))
    assert "stays with the manager" in of_root
    assert "besides those of the shell" in own and "stays with the manager" not in own


@pytest.mark.parametrize(("name", "fits"), [("a" * 128, True), ("+" * 39, True), ("+" * 40, False), ("ä" * 20, False)])
def test_a_name_that_gets_too_long_in_units_is_refused(name: str, fits: bool, tmp_path: Path) -> None:
    """As long as the scope of what the service calls a user endpoint may be."""
    scope = unit_names.scope(name, f"uep.{uuid.uuid4()}.{uuid.uuid4()}", 2**22)
    assert (len(scope.encode()) <= 255) == fits
    if fits:
        new_profile.make(tmp_path / name, {}, None, None)
        return
    with pytest.raises(NotMade, match="take a shorter name") as caught:
        new_profile.check(tmp_path / name, {})
    assert caught.value.exit_code == os.EX_USAGE
    with pytest.raises(NotMade, match="take a shorter name"):
        new_profile.make(tmp_path / name, {}, None, None)
    assert list(tmp_path.iterdir()) == []
