"""Stages, training, adapters and tasks: everything between raw files and a registered model."""
