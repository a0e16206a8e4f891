"""Inference with trained models: model folders, engine, Recognizer, bulk prediction, fusion."""
