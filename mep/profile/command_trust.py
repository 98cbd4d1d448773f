"""What a command line executes is root's alone: a mapping program, or the program of user endpoints, with arguments.

An interpreter executes what its arguments name, and imports what lies beside that. So each of these is looked at, by
the same function at start, at reload, in `mep check`, and before each run of a mapping program:

    the program, the interpreter in its first line, and what `env` finds along PATH
    every file and folder that an argument names, also as `--option=PATH`, `-IPATH`, or in a list
    what lies beside a script, or in such a folder, and can be imported: modules, and folders of them

What code reads or imports by itself cannot be followed. `unfollowed` names arguments that are such code.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from mep.profile import programs, trust
from mep.profile.errors import ConfigError

MODULES = (".py", ".pyc", ".pyd", ".so", ".pth", ".zip", ".egg", ".pl", ".pm", ".rb", ".lua", ".js", ".sh")
"""Ends of the names of files that interpreters import."""
UNFOLLOWED_REMEDY = "write the code into a file, and its path from / on"
"""For an argument that is code, or relative."""
_MAX_ENTRIES = 20_000
"""Entries of folders that are looked at beside one script."""
_SHELLS = ("sh", "bash", "dash", "ksh", "zsh")
"""They read from the folder of a script what the script names, and nothing that others may have added."""
_BETWEEN = re.compile(r"[=:,;|&<>()'\"\s]+")
"""What stands between paths in one argument: `--option=PATH`, lists, a line for a shell."""
_NO_FILES = ("/proc/", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/")


def check(command: Sequence[str]) -> None:
    """Returns if nobody but root can change what the command executes. Relative arguments are taken from `/`.

    Raises:
        ConfigError: with the file or folder in question, and the remedy.
    """
    program = Path(command[0])
    if not program.is_absolute():
        raise ConfigError(program, ["is not an absolute path; write the path from / on"])
    _check_executed(program, command[1:])
    for argument in command[1:]:
        for path in _paths(argument):
            check_path(path)


def check_packages(command: Sequence[str]) -> None:
    """The same for what is installed where the interpreter of the command belongs to a virtual environment.

    That is thousands of files, so it is not for each run. Raises as `check` does.
    """
    looked: set[Path] = set()
    try:
        environments = {at.parent.parent for at in programs.chain(Path(command[0]), command[1:])}
    except OSError:
        return  # told by `check`
    for environment in environments:
        if (environment / "pyvenv.cfg").exists():
            trust.require_file(environment / "pyvenv.cfg", "")
            for packages in environment.glob("lib*/python3*/site-packages"):
                check_tree(packages, looked)
                for added in _added(packages):
                    check_tree(added, looked)


def _added(packages: Path) -> Iterator[Path]:
    """The folders that `.pth` files add to those where Python looks."""
    for file in packages.glob("*.pth"):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            named = packages / line.strip()
            if line.strip() and not line.startswith(("import ", "import\t", "#")) and named.is_dir():
                yield named


def check_tree(folder: Path, looked: set[Path]) -> None:
    """A folder and all below it that Python may import; nobody else can add to it. looked: where we were already.

    Raises as `check` does.
    """
    if folder not in looked:
        check_closed(folder)
    left = [folder]
    while left:
        at = left.pop()
        if at in looked:
            continue
        looked.add(at)
        try:
            with os.scandir(at) as entries:
                for entry in entries:
                    if entry.is_dir():
                        _check_entry(entry)
                        left.append(Path(entry.path).resolve() if entry.is_symlink() else Path(entry.path))
                    elif entry.name.endswith(MODULES):
                        _check_entry(entry)
        except OSError as e:
            raise ConfigError(at, [f"cannot be looked at: {e.strerror}"]) from None


def _check_entry(entry: os.DirEntry[str]) -> None:
    """As `trust` does for a part of a path, without a look at the way for each of thousands of files."""
    status, path = entry.stat(follow_symlinks=False), Path(entry.path)
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others or stat.S_ISLNK(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        check_closed(path) if entry.is_dir() else trust.require(path, "remove the link")


def unfollowed(command: Sequence[str]) -> list[str]:
    """Arguments that are code, or name it in a way that only their program understands."""
    return [argument for argument in command[1:] if argument in ("-c", "-m", "-e") or _is_relative(argument)]


def unfollowed_text(argument: str) -> str:
    """What is the matter with such an argument."""
    return f"nobody has looked at what argument {argument!r} leads to, and who can change that"


def _is_relative(argument: str) -> bool:
    named = Path(argument)
    looks_like_a_file = "/" in argument or named.suffix in MODULES
    return looks_like_a_file and not argument.startswith(("-", "/")) and "://" not in argument and not _is_there(named)


def _is_there(path: Path) -> bool:
    return os.path.lexists(Path("/", path))


def _paths(argument: str) -> Iterator[Path]:
    """All that an argument may name; most of it is no path, and then not there."""
    for text in dict.fromkeys((argument, *_BETWEEN.split(argument))):
        name = text[text.find("/") :] if text.startswith("-") else text
        path = Path("/", name.lstrip("/"))
        if path.name and "\0" not in name and not str(path).startswith(_NO_FILES) and ("/" in name or _is_there(path)):
            yield path


def check_path(path: Path) -> None:
    """What an argument, or something else by which code is found, names: a file with its interpreter and what lies
    beside it, a folder with all that can be imported from it; if it is not there, nobody else can make it.

    Raises as `check` does.
    """
    there = path
    while not os.path.lexists(there):
        there = there.parent
    if there != path:
        check_closed(there)  # nobody else may put a file there
    elif path.is_dir():
        _check_modules({path})
    elif path.is_file() or path.is_symlink():  # not a device
        _check_executed(path, (), executable=False)
        _check_modules(_beside(path))


def _check_executed(program: Path, arguments: Sequence[str], *, executable: bool = True) -> None:
    """The program, and what executes it."""
    at, scripts = program, list[Path]()
    try:
        for at in programs.chain(program, arguments):
            status = trust.require_file(at, "it cannot be executed; install it, or correct its path")
            if not status.st_mode & 0o111 and (executable or at != program):
                raise ConfigError(at, [f"is not executable; mend it: chmod a+rx {at}"])
            if scripts and scripts[-1].name == "env":
                _check_search(at)
            scripts.append(at)
    except OSError as e:
        raise ConfigError(at, [f"cannot be read: {e.strerror}"]) from None
    for script in scripts[:-1]:
        if script.name != "env":
            _check_modules(_beside(script), searched=at.name not in _SHELLS)


def _check_search(found: Path) -> None:
    """Nobody else can put a program where `env` looks before it comes to this one."""
    for folder in map(Path, programs.PATH.split(":")):
        if folder.is_dir():
            check_closed(folder)
        if folder == found.parent:
            return


def _beside(script: Path) -> set[Path]:
    """Where a script may import from: the folder in which it lies, and that in which it is named."""
    return {script.parent, script.resolve().parent}


def _check_modules(folders: set[Path], *, searched: bool = True) -> None:
    """The folders, all in them that can be imported, and the packages in them.

    searched: what others add may be found, too.
    """
    left, known, entries = list(folders), {folder.resolve() for folder in folders}, 0
    while left:
        folder = left.pop()
        check_closed(folder) if searched else trust.require(folder, "make it")
        try:
            for entry in folder.iterdir():
                entries += 1
                if entry.name.endswith(MODULES):
                    trust.require(entry, "remove the link")
                elif entry.is_dir() and entry.resolve() not in known and _has_modules(entry):
                    known.add(entry.resolve())
                    left.append(entry)
        except OSError as e:
            raise ConfigError(folder, [f"cannot be looked at: {e.strerror}"]) from None
        if entries > _MAX_ENTRIES:
            raise ConfigError(folder, ["has too much beside the program; give the program a folder of its own"])


def _has_modules(folder: Path) -> bool:
    return any(entry.name.endswith(MODULES) for entry in folder.iterdir())


def check_closed(folder: Path) -> None:
    """A sticky folder, as /tmp is, does for the way to a file; here others could put a module, or the file itself.

    Raises as `check` does.
    """
    status = trust.require(folder, "make it")
    if stat.S_ISDIR(status.st_mode) and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(folder, ["others than root may put files there; use a folder that only root can write to"])
