"""A training as a job: its identity, its provenance, and where it runs."""
