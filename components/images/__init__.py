"""Code shared by tasks on images."""
