"""Code shared by classifiers: loss, answers to requests, and the report on the test split."""
