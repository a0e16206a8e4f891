"""Public pretrained weights, converted to our networks."""
