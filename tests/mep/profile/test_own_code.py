"""What this program may import, and what variables name: whoever could change that would be root."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mep.profile import command_trust, own_code
from mep.profile.errors import ConfigError

NOBODY = 65534


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder as Python's packages lie in."""
    folder = tmp_path / "site-packages"
    (folder / "package" / "below" / "__pycache__").mkdir(parents=True)
    (folder / "package" / "below" / "data.txt").touch()
    for module in ("one.py", "package/__init__.py", "package/below/two.py", "package/below/__pycache__/two.pyc"):
        (folder / module).touch()
    return folder


def others_own(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def others_write(path: Path) -> None:
    path.chmod(0o777 if path.is_dir() else 0o666)


SPOILT: dict[str, Callable[[Path], None]] = {
    "module that others write": lambda folder: others_write(folder / "one.py"),
    "module that nobody has loaded": lambda folder: others_write(folder / "package" / "below" / "two.py"),
    "module of somebody else": lambda folder: others_own(folder / "one.py"),
    "what was compiled": lambda folder: others_write(folder / "package" / "below" / "__pycache__" / "two.pyc"),
    "folder that others write": others_write,
    "sticky folder": lambda folder: folder.chmod(0o1777),
    "package that others write": lambda folder: others_write(folder / "package" / "below"),
    "sticky package": lambda folder: (folder / "package" / "below").chmod(0o1777),
    "package of somebody else": lambda folder: others_own(folder / "package"),
}


@pytest.mark.parametrize("way", SPOILT)
@pytest.mark.parametrize("found", ["on the path", "loaded from elsewhere", "of another environment", "by a .pth file"])
def test_code_that_others_can_change(
    packages: Path, monkeypatch: pytest.MonkeyPatch, way: str, found: str, root: None
) -> None:
    look = own_code.check
    if found == "on the path":
        monkeypatch.setattr(sys, "path", [str(packages)])
        monkeypatch.setattr(sys, "modules", {})
    elif found == "loaded from elsewhere":  # as with `pip install -e`
        module = ModuleType("one")
        module.__file__ = str(packages / "one.py")
        monkeypatch.setattr(sys, "path", [])
        monkeypatch.setattr(sys, "modules", {"one": module})
    else:
        environment = packages.parent / "venv"
        (environment / "bin").mkdir(parents=True)
        (environment / "bin" / "python").symlink_to("/bin/sh")
        (environment / "pyvenv.cfg").touch()
        theirs = environment / "lib" / "python3.11" / "site-packages"
        theirs.parent.mkdir(parents=True)
        if found == "of another environment":
            packages = packages.rename(theirs)
        else:
            theirs.mkdir()
            (theirs / "added.pth").write_text(f"import os\n{packages}\n/not/there\n")

        def look() -> None:
            command_trust.check_packages([str(environment / "bin" / "python"), "-c", "pass"])

    look()
    SPOILT[way](packages)
    with pytest.raises(ConfigError, match=str(packages)):
        look()


def test_a_folder_that_others_could_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path / "not" / "there")])
    monkeypatch.setattr(sys, "modules", {})
    own_code.check()
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        own_code.check()


@pytest.mark.parametrize("variable", own_code.VARIABLES)
def test_files_that_variables_name(tmp_path: Path, variable: str) -> None:
    folder, file = tmp_path / "folder", tmp_path / "folder" / "file"
    folder.mkdir(mode=0o755)
    file.touch()
    (folder / "gone").symlink_to("nowhere")
    values = [str(file), str(folder), f"/usr/lib:{file}", str(folder / "not there")]
    assert [list(own_code.variable_problems({variable: value})) for value in values] == [[]] * 4
    file.chmod(0o666)
    for value in values[:3]:
        (told,) = own_code.variable_problems({variable: value})
        assert told.startswith(f"{variable}: ")
        assert told.endswith(f"chmod go-w {file}")
    folder.chmod(0o1777)
    (told,) = own_code.variable_problems({variable: values[3]})
    assert str(folder) in told


def test_variables_that_name_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = dict.fromkeys(own_code.VARIABLES, "")
    assert not list(own_code.variable_problems({}))
    assert not list(own_code.variable_problems({**empty, "LD_PRELOAD": "libc.so.6", "SSL_CERT_X": "/tmp"}))
