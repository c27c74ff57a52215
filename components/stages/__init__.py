"""Prepare, train, evaluate, register: what is the same for all tasks."""
