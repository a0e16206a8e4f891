"""Networks, one file per model, and the registry that builds them by name."""
