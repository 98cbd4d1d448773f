from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mep.profile.errors import ConfigError
from mep.profile.profile import check_name
from mep.reader import files, loader, registered
from tests.mep.loading import loaded_by, rooms


def test_a_profile_is_read_whole(profile_directory: Path) -> None:
    profile = loader.load(profile_directory)
    assert profile.name == "prod"
    assert profile.config.display_name == "Prod"
    assert "ThreadPoolEngine" in profile.templates[profile.template_name]
    assert profile.schema == {"type": "object"}
    assert profile.environment == {"SITE": "here", "NUMBER": "5"}
    assert profile.mapping.text


def test_the_template_may_have_its_older_name_and_neighbours(profile_directory: Path) -> None:
    (profile_directory / "user_config_template.yaml.j2").rename(profile_directory / "user_config_template.yaml")
    (profile_directory / "common.j2").write_text("{# shared #}")
    profile = loader.load(profile_directory)
    assert profile.template_name == "user_config_template.yaml"
    assert set(profile.templates) == {"user_config_template.yaml", "common.j2"}


def test_schema_and_environment_are_optional(profile_directory: Path) -> None:
    (profile_directory / "user_config_schema.json").unlink()
    (profile_directory / "user_environment.yaml").unlink()
    profile = loader.load(profile_directory)
    assert profile.schema is None
    assert profile.environment == {}


MAPPING = (
    '[{"DATA_TYPE": "expression_identity_mapping#1.0.0",'
    ' "mappings": [{"source": "{id}", "match": ".*", "output": "x"}]}]'
)


def edited(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text((directory / name).read_text().replace(old, new))


@pytest.mark.parametrize(
    "edit",
    [
        edited("config.yaml", "Prod", "Other"),
        edited("user_config_template.yaml.j2", "Thread", "Process"),
        lambda directory: (directory / "common.j2").write_text(""),
        lambda directory: (directory / "user_config_template.yaml.j2").rename(directory / "user_config_template.yaml"),
        edited("user_config_schema.json", "object", "array"),
        lambda directory: (directory / "user_config_schema.json").unlink(),
        edited("user_environment.yaml", "here", "there"),
        lambda directory: (directory / "mapping.json").write_text(MAPPING),
    ],
)
def test_the_digest_changes_with_each_file(profile_directory: Path, edit: Callable[[Path], object]) -> None:
    before = loader.load(profile_directory).digest
    assert loader.load(profile_directory).digest == before
    assert len(bytes.fromhex(before)) == 32
    edit(profile_directory)
    assert loader.load(profile_directory).digest != before


def test_the_digest_changes_with_what_is_in_force(profile_directory: Path) -> None:
    profile = loader.load(profile_directory)
    on_hold = dataclasses.replace(profile, config=dataclasses.replace(profile.config, render_account="somebody"))
    assert on_hold.digest != profile.digest


def test_the_digest_is_the_same_in_every_process_and_whatever_the_order(profile_directory: Path) -> None:
    script = "import sys, pathlib; from mep.reader import loader; print(loader.load(pathlib.Path(sys.argv[1])).digest)"
    (profile_directory / "config.yaml").write_text(
        (profile_directory / "config.yaml").read_text() + "accounts:\n  min_uid: 500\n  allow_nologin: true\n"
    )
    before = loader.load(profile_directory).digest
    (profile_directory / "user_environment.yaml").write_text("NUMBER: 5\nSITE: here\n")
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script, profile_directory],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == before


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda directory: (directory / name).write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "file", "names"),
    [
        (lambda d: (d / "config.yaml").unlink(), "config.yaml", "identity_mapping_config_path"),
        (write("config.py", "config = None"), "config.py", "its engine into user_config_template.yaml.j2"),
        (write("config.yaml", "display_name: x"), "config.yaml", "identity_mapping_config_path"),
        (write("config.yaml", b"\xff"), "config.yaml", "UTF-8"),
        (write("user_config_schema.json", "{"), "user_config_schema.json", "JSON"),
        (write("user_config_schema.json", "[]"), "user_config_schema.json", "object"),
        (write("user_config_schema.json", '{"type": "no"}'), "user_config_schema.json", "JSON schema"),
        (write("user_environment.yaml", "- a"), "user_environment.yaml", "NAME: value"),
        (write("user_environment.yaml", "A=B: x"), "user_environment.yaml", "A=B"),
        (write("user_environment.yaml", "A: [1]"), "user_environment.yaml", "one value"),
        (write("mapping.json", "[{}]"), "mapping.json", "DATA_TYPE"),
        (write("mapping.json", "["), "mapping.json", ""),
        (write("user_config_template.yaml.j2", "a: {% if %}"), "user_config_template.yaml.j2", "line 1"),
        (write("user_config_template.yaml.j2", "{{ a | nosuch }}"), "user_config_template.yaml.j2", "nosuch"),
        (write("user_config_template.yaml.j2", "{% include 'a.j2' %}"), "user_config_template.yaml.j2", "'a.j2'"),
        (write("user_config_template.yaml.j2", " "), "user_config_template.yaml.j2", "empty"),
        (write("common.j2", "{% endif %}"), "common.j2", "line 1"),
        (lambda d: (d / "mapping.json").unlink(), "mapping.json", "no such file"),
        (lambda d: (d / "user_config_template.yaml.j2").unlink(), "user_config_template.yaml.j2", "no such file"),
        (lambda d: (d / "config.yaml").chmod(0o666), "config.yaml", "chmod go-w"),
        (lambda d: (d / "mapping.json").chmod(0o664), "mapping.json", "chmod go-w"),
        (lambda d: d.chmod(0o777), "", "chmod go-w"),
    ],
)
def test_a_broken_file_is_named_with_the_remedy(
    profile_directory: Path, spoil: Callable[[Path], object], file: str, names: str
) -> None:
    spoil(profile_directory)
    with pytest.raises(ConfigError) as caught:
        loader.load(profile_directory)
    assert str(profile_directory / file) in str(caught.value)
    assert names in str(caught.value)


def test_a_folder_in_place_of_a_file_is_named(profile_directory: Path) -> None:
    (profile_directory / "user_environment.yaml").unlink()
    (profile_directory / "user_environment.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"user_environment\.yaml: is a folder"):
        loader.load(profile_directory)


def test_no_profile_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mep configure nosuch"):
        loader.load(tmp_path / "nosuch")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "-x", "a b", "a\\b", "it's", "a\n", "x" * 129, "é" * 101])
def test_names_that_are_no_folder_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        check_name(name)


@pytest.mark.parametrize(
    ("typed", "name"),
    [("a+b", "a+b"), ("Größe@2:x", "Größe@2:x"), (r"my\x2dep\x2b1", "my-ep+1"), (r"\xc3\xa9t\xc3\xa9", "été")],
)
def test_names_with_other_characters_and_as_systemd_writes_them(typed: str, name: str) -> None:
    assert check_name(typed) == name


def test_a_site_s_value_for_what_the_account_has_is_passed_over_with_a_warning(
    profile_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (profile_directory / "user_environment.yaml").write_text("HOME: /x\nSITE: here\nSHELL: /bin/x\n")
    loader.load(profile_directory)
    assert "user_environment.yaml: HOME, SHELL: not used" in caplog.text


def test_files_below_are_read_when_a_template_names_them(profile_directory: Path) -> None:
    template = profile_directory / "user_config_template.yaml.j2"
    template.write_text(
        "{% extends 'a/base.yaml' %}{% block x %}{% include ['no', 'a/../b', './c.txt'] %}{% endblock %}"
    )
    (profile_directory / "a").mkdir()
    (profile_directory / "a" / "base.yaml").write_text("{% block x %}{% endblock %}{% import 'a/m.j2' as m %}")
    (profile_directory / "a" / "m.j2").write_text("{% macro n() %}1{% endmacro %}")
    (profile_directory / "a" / "unnamed.j2").write_text("")
    (profile_directory / "c.txt").write_text("c")
    (profile_directory / "secret.yaml").write_text("client_secret: x")
    assert set(loader.load(profile_directory).templates) == {template.name, "a/base.yaml", "a/m.j2", "c.txt"}
    (profile_directory / "a" / "m.j2").chmod(0o622)
    with pytest.raises(ConfigError, match=r"a/m\.j2.*chmod go-w"):
        loader.load(profile_directory)


@pytest.mark.parametrize("name", ["'a/' ~ N ~ '.j2'", "[N, 'c.txt']"])
def test_a_name_that_is_made_up_can_be_that_of_any_j2_file(profile_directory: Path, name: str) -> None:
    template = profile_directory / "user_config_template.yaml.j2"
    template.write_text(f"engine: {{% include {name} %}}")
    (profile_directory / "a" / "b").mkdir(parents=True)
    (profile_directory / "a" / "b" / "1.j2").write_text("")
    (profile_directory / "a" / "1.yaml").write_text("")
    assert set(loader.load(profile_directory).templates) == {template.name, "a/b/1.j2"}


def test_templates_are_bounded_in_number_and_size(profile_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (profile_directory / "a.j2").write_text("x" * 100)
    monkeypatch.setattr(files, "MOST_TEMPLATES", 1)
    with pytest.raises(ConfigError, match="more than 1 files"):
        loader.load(profile_directory)
    monkeypatch.setattr(files, "MOST_TEMPLATES", 2)
    assert len(loader.load(profile_directory).templates) == 2
    monkeypatch.setattr(files, "MOST_TEMPLATE_TEXT", 100)
    with pytest.raises(ConfigError, match="MiB of text"):
        loader.load(profile_directory)


def test_a_file_of_somebody_else_is_refused(profile_directory: Path, root: None) -> None:
    os.chown(profile_directory / "mapping.json", 65534, 65534)
    with pytest.raises(ConfigError, match="chown root"):
        loader.load(profile_directory)


def test_the_endpoint_id_is_kept(profile_directory: Path) -> None:
    assert registered.endpoint_id(profile_directory) is None
    known = "ee9d42e2-85b1-487f-a350-9712bb321d5f"
    registered.remember(profile_directory, known, "amqps://broker.example.org:5671", {})
    assert registered.endpoint_id(profile_directory) == known
    assert registered.broker_address(profile_directory) == "amqps://broker.example.org:5671"
    (profile_directory / "endpoint.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"endpoint\.json"):
        registered.endpoint_id(profile_directory)


def test_no_parser_of_others_is_loaded_with_it() -> None:
    loaded = loaded_by("mep.reader.loader", "mep.reader.outside", "mep.reader.client_credentials")
    assert not rooms(loaded) & {"renderer", "monitor", "worker", "registration", "cli"}
    assert not loaded & {"pamela", "yaml", "jinja2", "jsonschema"}
