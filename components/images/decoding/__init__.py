"""The bytes of an image file -> pixels, or the reason why the file is unusable."""
