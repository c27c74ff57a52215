"""The stages prepare, train, evaluate and register, shared by all tasks."""
