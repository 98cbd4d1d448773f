"""Makes the SDK's serializer, and imports nothing else of the SDK until a task asks for it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from uep.workers.partial_import import partial_imports

RESULT_LIMIT = 10 * 1024 * 1024
"""Characters of a serialized result; the service takes no more."""


@functools.cache
def sdk() -> ModuleType:
    """Imports what is needed of the SDK. It is kept, whatever a task imports under that name."""
    with partial_imports("globus_compute_sdk"):
        import globus_compute_sdk
        import globus_compute_sdk.errors
        import globus_compute_sdk.serialize
        import globus_compute_sdk.version
    package: ModuleType = globus_compute_sdk
    return package


@functools.lru_cache(maxsize=8)
def serializer(allowed: tuple[str, ...]) -> Any:
    """Makes the serializer that reads what the strategies `allowed`, import paths, have written; none: all of them."""
    return sdk().serialize.ComputeSerializer(allowed_deserializer_types=_strategies(allowed) or None)


def serialize(value: Any, strategies: Sequence[str] | None, limit: int) -> str:
    """Makes text of `value`, by the first of `strategies` that can.

    Raises:
        MaxResultSizeExceeded: it has more than `limit` characters. Its `text` is for the user.
    """
    data: str = serializer(()).serialize_from_list(value, _strategies(strategies or ()))
    if len(data) > limit:
        error = sdk().errors.MaxResultSizeExceeded(len(data), limit)
        error.text = too_large(len(data), limit)
        raise error
    return data


def too_large(size: int, limit: int, who: str = "service") -> str:
    """Says what to do about a result of `size` characters; the last line is all that the public endpoint says."""
    return (
        f"The result has {size} bytes, packed as text, which makes binary data larger by a third; the {who} takes no"
        f" more than {limit}. Write it to a file and return the file's name, or return it in parts.\n"
        f"MaxResultSizeExceeded({size}, {limit})"
    )


def _strategies(paths: Sequence[str]) -> list[Any]:
    """Takes the SDK's strategies from the copy that we hold; another would not know them."""
    ours = sdk().serialize
    found = []
    for path in paths:
        module, _, name = path.rpartition(".")
        is_the_sdks = module.startswith("globus_compute_sdk.serialize") and hasattr(ours, name)
        found.append(getattr(ours, name) if is_the_sdks else path)
    return found
