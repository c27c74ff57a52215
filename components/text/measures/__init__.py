"""Measures shared by tasks on text."""
