"""Measurements with a ratio in the same run: ours beside the public package, on one hub and one broker."""
