"""One module for each outside tool."""
