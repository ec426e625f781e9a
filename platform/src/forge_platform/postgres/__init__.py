"""How the platform talks to PostgreSQL: its failures as types, its rows as Arrow batches."""
