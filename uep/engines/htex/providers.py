"""Makes Parsl's providers, launchers and addresses, by the names that configurations use.

A mapping with a `type` becomes an instance of the Parsl class, or the answer of the address function, of that name;
its other keys are the arguments. `launcher` inside a provider is such a mapping itself. The engine imports this module
when it starts, and with it Parsl.

Every argument is compared with what Parsl says it takes, before Parsl sees it: a provider that is given text for a
number would otherwise fail much later, in a thread of its own, with the tasks waiting. Where Parsl says nothing the
argument is passed on. Two things that YAML cannot say are put right: a tuple, which is a list in YAML, and a time like
1:00:00, which YAML reads as 3600.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import parsl.addresses
import parsl.launchers
import parsl.providers
import typeguard
from parsl.errors import OptionalModuleMissing

from uep.config import ConfigError, unknown
from uep.engines.htex.images import IMAGE_PROVIDERS
from uep.engines.options import NAMES

ADDRESSES = ("get_any_address", *(name for name in dir(parsl.addresses) if name.startswith("address_by_")))
"""Parsl's functions that find an address of this machine."""
WALLTIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")
SHORTEST_WALLTIME = 60
"""Seconds; a smaller number was hardly written as a time."""


def provider(mapping: object) -> Any:
    """Makes the provider that `mapping` describes.

    Raises:
        ConfigError: unknown type or argument, or refused by Parsl.
    """
    options = _mapping("provider", mapping)
    if "launcher" in options:
        options["launcher"] = launcher(options["launcher"])
    return _build("provider", parsl.providers, parsl.providers.__all__, options)


def needs_the_users_credentials(mapping: object, error: ConfigError) -> bool:
    """Tells whether a cloud's provider itself failed: it logs in when it is made, as whoever runs this."""
    cloud = isinstance(mapping, dict) and mapping.get("type") in IMAGE_PROVIDERS
    cause = error.__cause__
    return cloud and cause is not None and not isinstance(cause, OptionalModuleMissing | TypeError | ValueError)


def launcher(mapping: object) -> Any:
    """Makes the launcher that `mapping` describes.

    Raises:
        ConfigError: unknown type or argument, or refused by Parsl.
    """
    return _build("launcher", parsl.launchers, parsl.launchers.__all__, _mapping("launcher", mapping))


def address(value: object) -> str:
    """Returns an address that is text, or asks the address function of Parsl that the mapping `value` names.

    Raises:
        ConfigError: unknown type or argument, or refused by Parsl.
    """
    if isinstance(value, str):
        return value
    return str(_build("address", parsl.addresses, ADDRESSES, _mapping("address", value)))


def local_addresses() -> set[str]:
    """Lists where workers may reach this machine. Unlike Parsl's own list this asks nobody on the internet."""
    import psutil

    found = set()
    for ask in (
        parsl.addresses.address_by_hostname,
        parsl.addresses.address_by_route,
        *(lambda name=name: parsl.addresses.address_by_interface(name) for name in psutil.net_if_addrs()),
    ):
        try:
            found.add(str(ask()))
        except Exception:  # noqa: BLE001, S112 - one way less to reach this machine
            continue
    return found


def call(where: str, function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Calls `function(**options)`, once all options fit.

    Raises:
        ConfigError: a name or a value that `function` does not take, or whatever it refuses.
    """
    takes = inspect.signature(function).parameters
    missing = [name for name, each in takes.items() if each.default is each.empty and name not in options]
    for name in options:
        if name not in takes:
            raise ConfigError(f"{where}: {unknown('option', name, tuple(takes))}")
    if missing:
        raise ConfigError(f"{where}: needs {' and '.join(missing)}")
    kinds = _kinds(function)
    arguments = {
        name: _fitting(f"{where}.{name}", value, kinds[name]) if name in kinds else value
        for name, value in options.items()
    }
    try:
        return function(**arguments)
    except Exception as e:
        raise ConfigError(f"{where}: {e}") from e


def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """Finds the types that `function` takes, as far as Parsl says; else those of Slurm's provider, for numbers."""
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    names = inspect.signature(function).parameters
    slurms = get_type_hints(parsl.providers.SlurmProvider.__init__)
    numbers = {name: slurms[name] for name in names if slurms.get(name) in (int, float)}
    walltime = {name: str for name in names if name == "walltime"}
    return {**numbers, **walltime, **{name: hints[name] for name in names if name in hints}}


def _fitting(where: str, value: Any, kind: Any) -> Any:
    """Returns `value`, perhaps put right, if it is a `kind`.

    Raises:
        ConfigError: it is not.
    """
    if where.endswith(".walltime") and type(value) is int and value >= SHORTEST_WALLTIME:
        return f"{value // 3600:02}:{value // 60 % 60:02}:{value % 60:02}"
    if where.endswith(".walltime") and isinstance(value, str):
        return _walltime(where, value)
    value = _with_tuples(value, kind)
    if not _is_a(value, kind):
        hint = "; write it in quotes, as 'HH:MM:SS'" if where.endswith(".walltime") else ""
        raise ConfigError(f"{where}: expected {_said(kind)}, got {value!r}{hint}")
    return value


def _walltime(where: str, text: str) -> str:
    """Writes a time as Parsl needs it, HH:MM:SS, which each batch system takes.

    Slurm's forms are minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM and D-HH:MM:SS. Others' mean what they mean there: LSF
    has minutes and HH:MM; a bare number is of seconds for PBS and Grid Engine.

    Raises:
        ConfigError: it is no such time, or less than the minute that Parsl counts in.
    """
    match = WALLTIME.fullmatch(text.strip())
    parts = [int(part) for part in match["rest"].split(":")] if match else []
    if match is None:
        raise ConfigError(f"{where}: expected a time, as 'HH:MM:SS' or 'D-HH:MM:SS', got {text!r}")
    if match["days"] is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        last = 2 if where.startswith("LSF") or (where.startswith("Slurm") and len(parts) == 1) else 3
        hours, minutes, seconds = ([0] * (last - len(parts)) + parts + [0])[:3]
    total = ((int(match["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total < SHORTEST_WALLTIME:
        raise ConfigError(f"{where}: {text!r} is less than a minute")
    return f"{total // 3600:02}:{total // 60 % 60:02}:{total % 60:02}"


def _is_a(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) and not any(each in (bool, Any) for each in _alternatives(kind)):
        return False
    try:
        typeguard.check_type(value, kind, collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS)
    except typeguard.TypeCheckError:
        return False
    return True


def _with_tuples(value: Any, kind: Any) -> Any:
    """Turns lists in `value` into the tuples that `kind` asks for."""
    if not isinstance(value, list):
        return value
    for each in _alternatives(kind):
        inner = get_args(each)
        if get_origin(each) is tuple:
            return tuple(value)
        if get_origin(each) in (list, Sequence) and inner:
            return [_with_tuples(item, inner[0]) for item in value]
    return value


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _said(kind: Any) -> str:
    kinds = [each for each in _alternatives(kind) if each is not type(None)]
    return " or ".join(NAMES.get(get_origin(each) or each, getattr(each, "__name__", str(each))) for each in kinds)


def _mapping(what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ConfigError(f"{what}: expected a mapping with a 'type'")
    return {key: each for key, each in value.items() if each is not None}


def _build(what: str, module: ModuleType, names: Sequence[str], options: dict[str, Any]) -> Any:
    name = options.pop("type")
    if name not in names:
        raise ConfigError(unknown(f"{what} type", name, tuple(set(names))))
    return call(name, getattr(module, name), options)
