"""Code location: clean customers, their metrics and lifetime value."""
