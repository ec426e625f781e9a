"""Runs one way once, in a process of its own, and prints what it found as JSON."""

from __future__ import annotations

import json
import resource
import sys

from forge_benchmarks.catalog import BENCHMARKS
from forge_benchmarks.ways import Watch


def main() -> None:
    """Arguments: benchmark, number of the way, parameters as JSON."""
    benchmark, number, parameters = sys.argv[1:]
    way = BENCHMARKS[benchmark].ways[int(number)]
    watch = Watch()
    way.run(watch, json.loads(parameters))
    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
