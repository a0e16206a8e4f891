"""Evaluation: predictions, metrics, intervals, calibration, fusion, comparison and submission files."""
