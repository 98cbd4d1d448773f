"""Names of units of systemd."""

from __future__ import annotations

_WORDS = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:_.")


def escape(text: str, keep: str = "") -> str:
    """As `systemd-escape` does, for one part of a unit's name: `my-site` is `my\\x2dsite`, as '-' nests slices."""
    words = _WORDS | set(keep.encode())
    escaped = "".join(chr(byte) if byte in words else f"\\x{byte:02x}" for byte in text.encode())
    return escaped.replace(".", "\\x2e", 1) if escaped.startswith(".") else escaped


def prefix(profile: str) -> str:
    """How the names of all slices and scopes of a profile begin."""
    return f"mep-{escape(profile)}"


def scope(profile: str, endpoint: str, pid: int) -> str:
    """The scope of a user endpoint."""
    return f"{prefix(profile)}-{escape(endpoint, keep='-')}-{pid}.scope"
