"""Code shared by tasks on text."""
