"""Code shared by tasks on sound."""
