"""One file for each step. The next one is `v0003_WHAT.py` and says `down_revision = "0002"`."""
