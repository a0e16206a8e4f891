"""What a trained model says about a video."""
