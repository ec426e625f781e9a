"""All benchmarks by name."""

from __future__ import annotations

from forge_benchmarks import extract, ingest, merge, read, start

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        extract.BENCHMARK,
        ingest.BENCHMARK,
        merge.HOT,
        merge.SPREAD,
        read.BENCHMARK,
        start.IDLE,
        start.IMPORTS,
        start.RUN_START,
    )
}
