"""The command: measures, prints tables, writes JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from forge_benchmarks.catalog import BENCHMARKS
from forge_benchmarks.place import ROOT, postgres
from forge_benchmarks.ways import Benchmark, Role, Way

# What a user of the platform has: pyarrow imports pandas where a peer has brought it.
_PLATFORM_PYTHON = ROOT.parent / ".venv" / "bin" / "python"
_PEER_ROUNDS = 3
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "extract": {"rows": 5_000_000},
    "ingest": {"rows": 5_000_000},
    "merge-hot": {"rows": 10_000_000, "changes": 100_000, "keys": "hot"},
    "merge-spread": {"rows": 10_000_000, "changes": 100_000, "keys": "spread"},
    "read": {"rows": 10_000_000, "changes": 100_000, "keys": "spread"},
    "idle": {"rows": 100_000},
    "imports": {},
    "run-start": {},
}
_SCALES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "ingest": [
        *({"rows": rows} for rows in (1_000_000, 10_000_000, 50_000_000)),
        *({"rows": 1_000_000, "columns": count} for count in (1, 10, 200)),
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
    report = Report(options.json, options.rounds)
    missed: list[str] = []
    with postgres():
        for name in names:
            benchmark = BENCHMARKS[name]
            wanted = _SCALES.get(name, []) if options.scale else [_sized(name, options.rows)]
            for parameters in wanted:
                ways = _ways(benchmark, options)
                measured, failed = _measure(benchmark, ways, parameters, options.rounds, console)
                missed += failed
                missed += _judged(
                    benchmark, measured, parameters, console, strict=not options.scale
                )
                report.add(name, parameters, measured)
    console.print(f"Written to {options.json}.")
    for line in missed:
        console.print(line, style="red", markup=False, soft_wrap=True)
    return int(bool(missed))


@dataclass
class Report:
    """What was measured so far, as JSON: nothing is lost when a later benchmark fails."""

    path: Path
    rounds: int
    results: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, name: str, parameters: Mapping[str, Any], measured: Sequence[Measured]) -> None:
        """Writes the file anew, with one benchmark more."""
        ways = [asdict(each) for each in measured]
        self.results.append({"benchmark": name, "parameters": parameters, "ways": ways})
        about = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "rounds": self.rounds,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({**about, "results": self.results}, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("benchmark", nargs="*", choices=[[], *BENCHMARKS], help="all when none")
    parser.add_argument("--rounds", type=int, default=7, help="times that ours is run (7)")
    parser.add_argument("--scale", action="store_true", help="how cost grows with size")
    parser.add_argument("--rows", type=int, help="rows instead of 5 or 10 million")
    parser.add_argument("--slow", action="store_true", help="with peers that take many minutes")
    parser.add_argument("--ours", action="store_true", help="without peers")
    parser.add_argument("--json", type=Path, default=ROOT / "results.json", help="where to write")
    return parser


def _sized(name: str, rows: int | None) -> Mapping[str, Any]:
    given = _DEFAULTS[name]
    return {**given, "rows": rows} if rows and "rows" in given else given


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
) -> tuple[list[Measured], list[str]]:
    """Runs every way once a round, so that a slow moment of the machine meets them all.

    Peers, which take minutes and are held to no ratio near one, take part in the first rounds.

    Returns:
        what was measured, and why some of the ways were not.
    """
    found: dict[str, list[Mapping[str, Any]]] = {way.name: [] for way in ways}
    failed: dict[str, str] = {}
    turns = [
        way
        for number in range(rounds)
        for way in ways
        if way.role != Role.PEER or number < _PEER_ROUNDS
    ]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{benchmark.name}: preparing", total=len(turns) + 1)
        benchmark.prepare(parameters)
        progress.advance(task)
        for way in turns:
            progress.update(task, description=f"{benchmark.name}: {way.name}")
            try:
                found[way.name].append(_run(benchmark, way, parameters))
            except WayFailedError as error:
                failed[way.name] = str(error)
            progress.advance(task)
    done = [way for way in ways if way.name not in failed]
    floors = [found[way.name] for way in done if way.role == Role.FLOOR]
    floor = _median_seconds(floors[0]) if floors else math.nan
    return [_summed_up(way, found[way.name], floor) for way in done], list(failed.values())


class WayFailedError(Exception):
    """One way could not do the work, or not as it must."""


def _run(benchmark: Benchmark, way: Way, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    python = sys.executable if way.role == Role.PEER else str(_PLATFORM_PYTHON)
    command = [python, "-W", "ignore", "-m", "forge_benchmarks.child", benchmark.name]
    done = subprocess.run(  # noqa: S603 - the command is ours
        [*command, str(benchmark.ways.index(way)), json.dumps(parameters)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WayFailedError(f"{benchmark.name}, {way.name} failed:\n{done.stderr[-3000:]}")
    result: Mapping[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    for fact, wanted in benchmark.finds.items() if way.role == Role.OURS else ():
        if (found := result["facts"].get(fact)) != wanted:
            raise WayFailedError(f"{benchmark.name}, {way.name}: {fact} is {found}, goal {wanted}")
    return result


def _median_seconds(runs: Sequence[Mapping[str, Any]]) -> float:
    return float(statistics.median(run["seconds"] for run in runs))


def _summed_up(way: Way, runs: Sequence[Mapping[str, Any]], floor: float) -> Measured:
    seconds = _median_seconds(runs)
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
    ours = next((m for m in measured if m.role == Role.OURS), None)
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
        problems = [
            *_missed(benchmark, each, goal, widened="columns" in parameters),
            *(_compared(benchmark, each, ours) if ours else ()),
        ]
        missed += [f"{benchmark.name}, {each.name}: {problem}" for problem in problems]
    console.print(table)
    return missed


def _missed(
    benchmark: Benchmark, each: Measured, goal: float | None, *, widened: bool
) -> Iterator[str]:
    """What is asked of ours and not so; memory may grow with columns, not with rows."""
    if each.role != Role.OURS:
        return
    if goal is not None and each.ratio > goal:
        yield f"{each.ratio} times the floor, goal {goal}"
    if benchmark.most_mb is not None and not widened and each.peak_mb > benchmark.most_mb:
        yield f"{each.peak_mb} MB, {benchmark.most_mb} are allowed"
    if benchmark.most_seconds is not None and each.seconds > benchmark.most_seconds:
        yield f"{each.seconds} s, {benchmark.most_seconds} are allowed"


def _compared(benchmark: Benchmark, each: Measured, ours: Measured) -> Iterator[str]:
    """What differs from ours, or is not as much slower as it should be."""
    wanted = benchmark.times_faster.get(each.name)
    if wanted is not None and each.seconds < wanted * ours.seconds:
        yield f"ours is {each.seconds / ours.seconds:.1f} times faster, goal {wanted}"
    for name in ours.facts.keys() & each.facts.keys():
        if str(ours.facts[name]) != str(each.facts[name]):
            yield f"{name} is {each.facts[name]}, ours {ours.facts[name]}"


if __name__ == "__main__":
    sys.exit(main())
