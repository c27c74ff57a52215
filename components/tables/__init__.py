"""What tasks on tables share: reading, types of columns, splits, networks, baselines and measures."""
