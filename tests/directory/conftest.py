"""These tests run inside a box (`lab.box`), whose name service asks a directory: `tests/system/test_directory.py` does
that. Elsewhere nothing is collected here.
"""

from __future__ import annotations

import os

collect_ignore_glob: list[str] = [] if os.environ.get("MEP_BOX") else ["test_*.py"]
