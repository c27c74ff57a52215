"""Recordings of speech with their transcripts, in the layouts in which people have them."""
