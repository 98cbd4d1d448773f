"""The code of this program and of the user endpoints that it starts is root's alone; so is what the environment names.

Whoever can change one module is root at the next start, and every user. So all that Python may import is looked at, not
only what is loaded now: the folders of `sys.path` with all in them (so also what `.pth` files add), and those of
loaded modules that lie elsewhere, as with `pip install -e`. Nor can others put a file there, where Python would look.

Some variables, also of the file `environment`, name files that libraries load into root, or by which they tell the
service from others: those, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mep.profile import command_trust, trust
from mep.profile.errors import ConfigError

VARIABLES = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),  # who is taken for the service
    *("OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"),  # code
    "NETRC",  # a login that the HTTP library prefers to ours
)
"""Variables that name files or folders, some of them several."""


def check() -> None:
    """Returns if nobody but root can change what this program imports.

    Raises:
        ConfigError: with the file or folder in question, and the remedy.
    """
    looked: set[Path] = set()
    command_trust.check_path(Path(sys.prefix, "pyvenv.cfg"))
    for entry in map(Path.absolute, map(Path, sys.path)):
        if entry.is_dir():
            command_trust.check_tree(entry, looked)
        else:
            command_trust.check_path(entry)  # an archive, or nothing yet
    for file in _loaded():
        if looked.isdisjoint(file.parents):
            command_trust.check_tree(file.parent, looked)


def variable_problems(environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the files that variables name, and the remedies."""
    for name in VARIABLES:
        value = environment.get(name, "")
        for path in [value] if Path(value).exists() else value.replace(" ", ":").split(":"):
            try:
                if "/" in path:  # else it is looked for where the system has it
                    _check_named(Path(path).absolute())
            except (ConfigError, OSError) as e:
                yield f"{name}: {e}"


def _check_named(path: Path) -> None:
    """Raises ConfigError and OSError."""
    if not path.is_dir():
        command_trust.check_path(path)
        return
    command_trust.check_closed(path)
    for entry in path.iterdir():
        if entry.exists():  # of links that lead nowhere there are some among certificates
            trust.require(entry, "restore it")


def _loaded() -> Iterator[Path]:
    """Files of modules, and what was compiled of them."""
    for module in list(sys.modules.values()):
        for file in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
            if isinstance(file, str) and os.path.lexists(file):
                yield Path(file).absolute()
