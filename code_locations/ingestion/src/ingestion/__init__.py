"""Code location: what comes in from PostgreSQL, files and HTTP APIs."""
