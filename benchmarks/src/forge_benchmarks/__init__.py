"""Measures the data plane beside floors and peers, in one run, as ratios."""
