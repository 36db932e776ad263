"""Ratios, side by side in one run: how fast distctl is beside bare SQLite, the interpreter, and its peers."""
