"""Public weights, converted to weights of our networks."""
