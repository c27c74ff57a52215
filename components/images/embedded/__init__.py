"""The embedded image data sets."""
