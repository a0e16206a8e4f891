"""RGB-D clips of people in motion, drawn from motion capture: needs the extra `render`."""
