"""Runs one way once, in a process of its own, and prints what it found as JSON."""

from __future__ import annotations

import json
import sys

from forge_benchmarks.catalog import BENCHMARKS
from forge_benchmarks.ways import Watch


def main() -> None:
    """Arguments: benchmark, number of the way, parameters as JSON."""
    benchmark, number, parameters = sys.argv[1:]
    way = BENCHMARKS[benchmark].ways[int(number)]
    watch = Watch()
    facts = way.run(watch, json.loads(parameters))
    found = {"seconds": watch.seconds, "peak_mb": watch.peak_mb, "facts": facts}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
