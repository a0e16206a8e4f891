"""Transforms of frames into clips."""
