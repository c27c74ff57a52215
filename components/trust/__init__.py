"""Evidence about a version: its lineage, and the statistics and rules of its promotion."""
