"""Images with a class for each pixel: the layouts of raw data that are read."""
