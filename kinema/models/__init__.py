"""The networks, one file a model, and the one place that builds them by name."""
