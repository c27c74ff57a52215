"""Images with labels: the layouts of raw data that are read, and their preparation."""
