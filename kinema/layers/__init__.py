"""Operators that the thesis proposes, one file each, and shared transformer building blocks."""
