"""What is claimed in the README and docs, runnable."""
