"""What one shows to others."""
