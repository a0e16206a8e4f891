"""Frame sources: from a file to frames."""
