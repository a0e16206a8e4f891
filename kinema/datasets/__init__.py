"""Public datasets and a user's own videos as manifests; each module adds its datasets to `kinema prepare`."""
