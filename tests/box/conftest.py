"""These tests run inside a box (`lab.box`), as root, where systemd is process 1: `tests/system/test_box.py` does that.

They may change everything they see: it is thrown away. Elsewhere nothing is collected here.
"""

from __future__ import annotations

import os

collect_ignore_glob: list[str] = [] if os.environ.get("MEP_BOX") else ["test_*.py"]
