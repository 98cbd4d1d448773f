"""What several tests of config.yaml do: read a text that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mep.profile.errors import ConfigError
from mep.reader.config_reader import read_config

PATH = Path("/etc/mep/prod/config.yaml")


def problems(text: str) -> str:
    """What is said of a text that is wrong: a line for each problem."""
    with pytest.raises(ConfigError) as caught:
        read_config(PATH, text)
    return str(caught.value)
