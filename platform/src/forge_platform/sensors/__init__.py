"""Factories of the sensors that more than one code location would write."""
