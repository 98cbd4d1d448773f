"""What is wrong with the files of a profile, for those who read them and those who tell about it."""

from __future__ import annotations

from pathlib import Path


class ConfigError(Exception):
    """A file of the profile cannot be used. The text names the file, every problem in it, and the remedy."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))

    def __reduce__(self) -> tuple[type[ConfigErrors], tuple[list[str]]]:
        """Pickled as its text, for who reads a profile in another process."""
        return ConfigErrors, ([str(self)],)


class ConfigErrors(ConfigError):
    """Several files are wrong; `texts` are those of their errors."""

    def __init__(self, texts: list[str]) -> None:
        Exception.__init__(self, "\n".join(texts))
