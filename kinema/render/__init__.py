"""RGB-D clips of people in motion, rendered from motion capture (extra `render`)."""
