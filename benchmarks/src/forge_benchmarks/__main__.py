"""The command: measures, prints tables, writes JSON."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from forge_benchmarks.catalog import BENCHMARKS
from forge_benchmarks.place import ROOT, postgres
from forge_benchmarks.ways import Benchmark, Role, Way

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "extract": {"rows": 5_000_000},
    "ingest": {"rows": 5_000_000},
    "merge-hot": {"rows": 10_000_000, "changes": 100_000, "keys": "hot"},
    "merge-spread": {"rows": 10_000_000, "changes": 100_000, "keys": "spread"},
    "idle": {"rows": 100_000},
    "imports": {},
}
_SCALES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "ingest": [
        *({"rows": rows} for rows in (1_000_000, 10_000_000, 50_000_000)),
        *({"rows": 1_000_000, "extra_columns": count} for count in (5, 195)),
    ],
    "merge-spread": [
        *(
            {"rows": rows, "changes": 100_000, "keys": "spread"}
            for rows in (1_000_000, 10_000_000, 50_000_000)
        ),
        *({"rows": 10_000_000, "changes": count, "keys": "spread"} for count in (1_000, 1_000_000)),
    ],
}


@dataclass(frozen=True)
class Measured:
    """One way: medians of the rounds."""

    name: str
    role: str
    seconds: float
    ratio: float
    peak_mb: int
    facts: Mapping[str, Any]


def main() -> int:
    """Runs what is asked for; 1 when a goal is missed or the ways disagree."""
    options = _parser().parse_args()
    names = options.benchmark or list(BENCHMARKS)
    console = Console()
    results: list[dict[str, Any]] = []
    missed: list[str] = []
    with postgres():
        for name in names:
            benchmark = BENCHMARKS[name]
            wanted = _SCALES.get(name, []) if options.scale else [_DEFAULTS[name]]
            for parameters in wanted:
                ways = _ways(benchmark, options)
                measured = _measure(benchmark, ways, parameters, options.rounds, console)
                missed += _judged(
                    benchmark, measured, parameters, console, strict=not options.scale
                )
                results.append(
                    {
                        "benchmark": name,
                        "parameters": parameters,
                        "ways": [asdict(each) for each in measured],
                    }
                )
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "rounds": options.rounds,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")
    console.print(f"Written to {options.json}.")
    for line in missed:
        console.print(f"[red]{line}")
    return int(bool(missed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("benchmark", nargs="*", choices=[[], *BENCHMARKS], help="all when none")
    parser.add_argument("--rounds", type=int, default=3, help="times that each way is run (3)")
    parser.add_argument("--scale", action="store_true", help="how cost grows with size")
    parser.add_argument("--slow", action="store_true", help="with peers that take many minutes")
    parser.add_argument("--ours", action="store_true", help="without peers")
    parser.add_argument("--json", type=Path, default=ROOT / "results.json", help="where to write")
    return parser


def _ways(benchmark: Benchmark, options: argparse.Namespace) -> list[Way]:
    with_peers = not (options.ours or options.scale)
    return [
        way
        for way in benchmark.ways
        if (with_peers or way.role != Role.PEER) and (options.slow or not way.slow)
    ]


def _measure(
    benchmark: Benchmark,
    ways: Sequence[Way],
    parameters: Mapping[str, Any],
    rounds: int,
    console: Console,
) -> list[Measured]:
    """Runs every way once a round, so that a slow moment of the machine meets them all."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(benchmark.name, total=len(ways) * rounds + 1)
        progress.update(task, description=f"{benchmark.name}: preparing")
        benchmark.prepare(parameters)
        progress.advance(task)
        found: dict[str, list[Mapping[str, Any]]] = {way.name: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                progress.update(task, description=f"{benchmark.name}: {way.name}")
                found[way.name].append(_run(benchmark, way, parameters))
                progress.advance(task)
    floor = next(
        statistics.median(run["seconds"] for run in found[way.name])
        for way in ways
        if way.role == Role.FLOOR
    )
    return [_summed_up(way, found[way.name], floor) for way in ways]


def _run(benchmark: Benchmark, way: Way, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    number = str(benchmark.ways.index(way))
    command = [sys.executable, "-W", "ignore", "-m", "forge_benchmarks.child", benchmark.name]
    done = subprocess.run(  # noqa: S603 - the command is ours
        [*command, number, json.dumps(parameters)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{benchmark.name}, {way.name} failed:\n{done.stderr[-3000:]}")
    result: Mapping[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _summed_up(way: Way, runs: Sequence[Mapping[str, Any]], floor: float) -> Measured:
    seconds = statistics.median(run["seconds"] for run in runs)
    return Measured(
        name=way.name,
        role=way.role,
        seconds=round(seconds, 3),
        ratio=round(seconds / floor, 2),
        peak_mb=max(run["peak_mb"] for run in runs),
        facts=runs[-1]["facts"],
    )


def _judged(
    benchmark: Benchmark,
    measured: Sequence[Measured],
    parameters: Mapping[str, Any],
    console: Console,
    *,
    strict: bool,
) -> list[str]:
    """Prints a table; returns what is not as it should be."""
    shown = ", ".join(f"{name} {value}" for name, value in parameters.items())
    table = Table(title=f"{benchmark.title}\n{shown}", title_justify="left")
    for heading in ("way", "seconds", "x floor", "goal", "peak MB", "found"):
        table.add_column(heading, justify="left" if heading in ("way", "found") else "right")
    missed = []
    truth = next((m.facts for m in measured if m.role == Role.OURS), {})
    for each in measured:
        goal = benchmark.goals.get(each.name) if strict else None
        table.add_row(
            f"[bold]{each.name}" if each.role == Role.OURS else each.name,
            f"{each.seconds:.2f}",
            f"{each.ratio:.2f}",
            f"{goal:.2f}" if goal else "",
            str(each.peak_mb),
            ", ".join(f"{name} {value}" for name, value in each.facts.items()),
        )
        missed += _problems(benchmark, each, goal, truth)
    console.print(table)
    return missed


def _problems(
    benchmark: Benchmark, each: Measured, goal: float | None, truth: Mapping[str, Any]
) -> list[str]:
    problems = []
    if goal is not None and each.ratio > goal:
        problems.append(f"{benchmark.name}, {each.name}: {each.ratio} times the floor, goal {goal}")
    too_large = benchmark.most_mb is not None and each.peak_mb > benchmark.most_mb
    if too_large and each.role == Role.OURS:
        problems.append(
            f"{benchmark.name}, {each.name}: {each.peak_mb} MB, {benchmark.most_mb} are allowed"
        )
    problems += [
        f"{benchmark.name}, {each.name}: {name} is {each.facts[name]}, ours {truth[name]}"
        for name in truth.keys() & each.facts.keys()
        if str(truth[name]) != str(each.facts[name])
    ]
    return problems


if __name__ == "__main__":
    sys.exit(main())
