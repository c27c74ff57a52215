"""Prepared data: arrays on disk, splits and batches, and the ingestion of raw files."""
