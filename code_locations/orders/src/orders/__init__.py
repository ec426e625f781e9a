"""Code location: enriched orders and daily sales."""
