"""One file a public data set, and folders and tables of a user's own: a raw layout becomes a manifest."""
