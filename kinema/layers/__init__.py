"""The operators that the thesis proposes, one file each, and what all models share."""
