"""Parsl's providers, launchers and addresses by the names that configurations use.

A mapping with a `type` becomes an instance of the Parsl class, or the answer of the address function, of that name;
its other keys are the arguments. `launcher` inside a provider is such a mapping itself. Imported by `htex` when it
starts: this imports Parsl.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import parsl.addresses
import parsl.launchers
import parsl.providers

from uep.config import ConfigError, unknown


def provider(mapping: object) -> Any:
    """The provider that `mapping` describes. Raises ConfigError: unknown type or argument, or refused by Parsl."""
    options = _mapping("provider", mapping)
    if "launcher" in options:
        options["launcher"] = launcher(options["launcher"])
    return _build("provider", parsl.providers, parsl.providers.__all__, options)


def launcher(mapping: object) -> Any:
    """The launcher that `mapping` describes; errors as for `provider`."""
    return _build("launcher", parsl.launchers, parsl.launchers.__all__, _mapping("launcher", mapping))


def address(value: object) -> str:
    """An address as text, or what an address function of Parsl says; errors as for `provider`."""
    if isinstance(value, str):
        return value
    names = [name for name in dir(parsl.addresses) if name.startswith("address_by_")]
    return str(_build("address", parsl.addresses, names, _mapping("address", value)))


def local_addresses() -> set[str]:
    """Where workers may reach this machine. Unlike Parsl's own list this asks nobody on the internet."""
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
    """`function(**options)`. Raises ConfigError for a name it does not take and for whatever it refuses."""
    takes = tuple(name for name in inspect.signature(function).parameters if name != "self")
    for name in options:
        if name not in takes:
            raise ConfigError(f"{where}: {unknown('option', name, takes)}")
    try:
        return function(**options)
    except Exception as e:
        raise ConfigError(f"{where}: {e}") from e


def _mapping(what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ConfigError(f"{what}: expected a mapping with a 'type'")
    return {key: each for key, each in value.items() if each is not None}


def _build(what: str, module: ModuleType, names: list[str], options: dict[str, Any]) -> Any:
    name = options.pop("type")
    if name not in names:
        raise ConfigError(unknown(f"{what} type", name, tuple(set(names))))
    return call(name, getattr(module, name), options)
