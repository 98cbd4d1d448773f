"""Whoever can change a file that decides what root does is root: every file, every folder on its way, every way.

Each is first fine, then spoiled, then mended with the very command that the refusal names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mep.profile import programs
from mep.profile.errors import ConfigError
from mep.reader import files, loader, outside

NOBODY = 65534
FILES = {
    "configuration": "etc/prod/config.yaml",
    "mapping": "maps/deep/mapping.json",
    "template": "templates/deep/uep.yaml.j2",
    "included template": "templates/deep/common.j2",
    "schema": "schemas/deep/schema.json",
    "environment": "etc/prod/user_environment.yaml",
    "endpoint id": "etc/prod/endpoint.json",
    "mapping program": "mapper/deep/program",
    "interpreter of the mapping program": "mapper-sh/deep/sh",
    "uep program": "uep/deep/mep-uep",
    "interpreter of the uep program": "uep-python/deep/python",
    "interpreter": "venv/bin/python",
}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, root: None) -> Iterator[Path]:
    """A folder with all files of a profile and all programs that it needs, each in folders of its own."""
    with tempfile.TemporaryDirectory(prefix="mep-test-") as name:  # pytest's own ordinary users cannot enter
        Path(name).chmod(0o755)
        fill(Path(name))
        monkeypatch.setattr(sys, "executable", f"{name}/{FILES['interpreter']}")
        yield Path(name)


def fill(site: Path) -> None:
    path = {name: site / file for name, file in FILES.items()}
    for file in path.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    path["configuration"].write_text(
        f"identity_mapping_config_path: {path['mapping']}\n"
        f"user_config_template_path: {path['template']}\n"
        f"user_config_schema_path: {path['schema']}\n"
        f"uep_command: [{path['uep program']}]\n"
    )
    external = {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(path["mapping program"]), "-x"]}
    path["mapping"].write_text(f"\ufeff{json.dumps([external])}")
    path["template"].write_text("{% include 'common.j2' %}")
    path["included template"].write_text("engine:\n  type: ThreadPoolEngine\n")
    path["schema"].write_text("{}")
    path["environment"].write_text("A: b\n")
    path["endpoint id"].write_text('{"endpoint_id": "ee9d42e2-85b1-487f-a350-9712bb321d5f"}')
    path["mapping program"].write_text(f"#!{path['interpreter of the mapping program']}\n")
    path["uep program"].write_text(f"#! {path['interpreter of the uep program']} -I\n")
    for name in FILES:
        if name.startswith("interpreter"):
            path[name].write_bytes(b"\x7fELF")
    for file in path.values():
        file.chmod(0o644 if file.suffix else 0o755)


def refusal(site: Path) -> str | None:
    """What the manager does at its start and at each reload; the text of its refusal."""
    try:
        outside.check(loader.load(site / "etc" / "prod"))
    except ConfigError as e:
        return str(e)
    return None


def others_own(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def group_may_write(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def others_may_write(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def linked_to(path: Path, spoil: Callable[[Path], object]) -> None:
    """`path` becomes a link to where it is now, in another folder, and that is spoiled."""
    other = path.parent / f"{path.name}.elsewhere"
    other.mkdir(mode=0o755)
    path.rename(other / path.name)
    path.symlink_to(f"{other.name}/{path.name}")
    spoil(other)


WAYS: dict[str, Callable[[Path], object]] = {
    "is somebody else's": others_own,
    "group may write": group_may_write,
    "others may write": others_may_write,
    "leads to somebody else's folder": lambda path: linked_to(path, others_own),
    "leads to a folder of a group": lambda path: linked_to(path, group_may_write),
    "leads to an open folder": lambda path: linked_to(path, others_may_write),
    "is somebody else's link": lambda path: (linked_to(path, lambda other: None), others_own(path)),
}
PLACES: dict[str, Callable[[Path], Path]] = {
    "file": lambda file: file,
    "folder": lambda file: file.parent,
    "folder above": lambda file: file.parent.parent,
}


def run_remedies(text: str) -> None:
    for line in text.splitlines():
        found = re.search(r"mend it: (ch(?:own|mod) .*?)(?:;|$)", line)
        assert found, line
        subprocess.run(found[1], shell=True, check=True)


def test_all_is_fine_at_first(site: Path) -> None:
    assert refusal(site) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("file", FILES)
def test_what_others_can_change_is_refused_until_it_is_mended(site: Path, file: str, place: str, way: str) -> None:
    assert refusal(site) is None
    path = site / FILES[file]
    WAYS[way](PLACES[place](path))
    text = refusal(site)
    assert text is not None
    assert len(text.splitlines()) == 1, text
    run_remedies(text)
    assert refusal(site) is None


@pytest.mark.parametrize("file", FILES)
def test_a_sticky_folder_is_accepted_for_what_is_only_read(site: Path, file: str) -> None:
    (site / FILES[file]).parent.chmod(0o1777)
    told = refusal(site)
    if file == "uep program":  # Python imports from there whatever others have added
        assert "use a folder that only root can write to" in str(told)
    elif file in ("configuration", "environment", "endpoint id"):  # the profile, to which root writes, too
        assert "name a folder of its own, which only root may write to" in str(told)
    else:
        assert told is None


@pytest.mark.parametrize("file", FILES)
def test_links_that_only_root_can_change_are_followed(site: Path, file: str) -> None:
    """As in a virtual environment: `python` -> `python3.11` -> `/usr/bin/python3.11`."""
    path = site / FILES[file]
    linked_to(path, lambda other: None)
    linked_to(path.parent, lambda other: None)
    assert refusal(site) is None


def test_the_refusal_names_file_place_and_remedy(site: Path) -> None:
    for file, name in FILES.items():
        path = site / name
        path.chmod(path.stat().st_mode | 0o020)
        text = str(refusal(site))
        named = site / FILES["mapping"] if "mapping program" in file else path
        assert text.startswith(f"{named}: "), text
        assert text.endswith(f"others than root may write to {path}; mend it: chmod go-w {path}"), text
        path.chmod(path.stat().st_mode & ~0o020)


def test_all_programs_are_told_at_once(site: Path) -> None:
    for file in ("interpreter", "uep program"):
        (site / FILES[file]).chmod(0o777)
    assert len(str(refusal(site)).splitlines()) == 2


@pytest.mark.parametrize("file", [file for file in FILES if "program" in file or "interpreter" in file])
def test_a_program_that_is_none(site: Path, file: str) -> None:
    path = site / FILES[file]
    path.chmod(0o644)
    assert f"is not executable; mend it: chmod a+rx {path}" in str(refusal(site))
    path.unlink()
    assert f"{path}: no such file" in str(refusal(site))
    os.mkfifo(path, 0o755)
    assert "put a file there" in str(refusal(site))


def test_scripts_that_interpret_each_other_have_an_end(site: Path) -> None:
    path = site / FILES["uep program"]
    path.write_text(f"#!{path}\n")
    assert "too many scripts" in str(refusal(site))
    assert "too many scripts" in str(programs.obstacle(path))


def test_a_reread_mapping_has_its_programs_checked(site: Path) -> None:
    mapping, program = site / FILES["mapping"], site / FILES["mapping program"]
    files.read_mapping(mapping)
    program.chmod(0o775)
    with pytest.raises(ConfigError, match=f"^{mapping}: mapping program {program}: .*chmod go-w {program}$"):
        files.read_mapping(mapping)


def test_a_script_after_an_interpreter(site: Path) -> None:
    """As Globus's own guide writes mapping programs; the program of user endpoints likewise."""
    mapping, script = site / FILES["mapping"], site / "map.py"
    script.touch()
    script.chmod(0o666)
    command = ["/usr/bin/python3", str(script)]
    mapping.write_text(json.dumps({"DATA_TYPE": "external_identity_mapping#1.0.0", "command": command}))
    with pytest.raises(ConfigError, match=f"^{mapping}: mapping program {script}: .*chmod go-w {script}$"):
        files.read_mapping(mapping)
    assert f"chmod go-w {script}" in str(outside.command_problem(command))
