"""Networks shared by tasks on text."""
