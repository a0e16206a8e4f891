"""Public data sets and own folders, as manifests."""
