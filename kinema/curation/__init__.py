"""Check, deduplicate and pack a whole dataset."""
