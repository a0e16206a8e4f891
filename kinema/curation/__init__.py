"""Check, deduplicate and pack a data set as a whole."""
