"""Manifests, splits, datasets, samplers and loaders: from files to batches."""
