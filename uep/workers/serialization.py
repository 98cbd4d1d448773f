"""Makes the SDK's serializer, and imports nothing else of the SDK until a task asks for it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from uep.workers.partial_import import partial_imports

RESULT_LIMIT = 10 * 1024 * 1024
"""Characters of a serialized result; the service takes no more."""


@functools.lru_cache(maxsize=8)
def serializer(allowed: tuple[str, ...]) -> Any:
    """Makes the serializer that reads what the strategies `allowed`, import paths, have written; none: all of them."""
    with partial_imports("globus_compute_sdk"):
        import globus_compute_sdk.errors
        import globus_compute_sdk.version  # noqa: F401 - below, and not later with all the rest
        from globus_compute_sdk.serialize import ComputeSerializer

    return ComputeSerializer(allowed_deserializer_types=allowed or None)


def serialize(value: Any, strategies: Sequence[str] | None, limit: int) -> str:
    """Makes text of `value`, by the first of `strategies` that can.

    Raises:
        MaxResultSizeExceeded: it has more than `limit` characters.
    """
    data: str = serializer(()).serialize_from_list(value, strategies or ())
    if len(data) > limit:
        from globus_compute_sdk.errors import MaxResultSizeExceeded

        raise MaxResultSizeExceeded(len(data), limit)
    return data
