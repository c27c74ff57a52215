"""What makes a version answer for itself: where it came from, and why it was promoted."""
