"""Built-in dataset `moves` and the motion capture it is rendered from."""
