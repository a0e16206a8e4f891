"""The built-in data set and the motion capture that it comes from."""
