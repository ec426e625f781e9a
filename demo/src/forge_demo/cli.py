"""The command ``forge-demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from forge_demo.state import DEFAULT_FOLDER, DemoState
from forge_platform.errors import ForgeError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and ends the process with its exit code."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(_COMMANDS[options.command](options))
    except ForgeError as error:
        sys.exit(f"forge-demo: {error}")


def _run(options: argparse.Namespace) -> int:
    from forge_demo.demo import run_demo

    return run_demo(_state(options), options.port, once=options.once, limit=options.limit)


def _change(options: argparse.Namespace) -> int:
    from forge_demo.change import change_source

    return change_source(_state(options), limit=options.limit)


def _clean(options: argparse.Namespace) -> int:
    state = _state(options)
    state.remove()
    print(f"{state.folder} is gone.")  # noqa: T201
    return 0


def _seed(options: argparse.Namespace) -> int:
    from forge_demo.seed import seed

    seed(options.database, options.bucket, patience=options.limit)
    return 0


_COMMANDS = {"run": _run, "change": _change, "clean": _clean, "seed": _seed}


def _state(options: argparse.Namespace) -> DemoState:
    return DemoState(options.folder.absolute())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forge-demo", description="The whole platform on this machine, with real data."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _add_command(commands, "run", "start everything and show data flow through it")
    run.add_argument("--once", action="store_true", help="end when all assets are made")
    run.add_argument("--port", type=int, default=3000, help="port of the UI (default: 3000)")
    _add_limit(run, "all assets must be made", 900)
    change = _add_command(commands, "change", "change the source while the demo runs")
    _add_limit(change, "the change must have arrived", 600)
    _add_command(commands, "clean", "remove everything that the demo has kept")
    seed = commands.add_parser("seed", help="fill the servers of a development cluster")
    seed.add_argument("--database", action="append", default=[], help="a database to make")
    seed.add_argument("--bucket", action="append", default=[], help="a bucket to make")
    _add_limit(seed, "the servers must answer", 300)
    return parser


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=purpose, description=purpose.capitalize())
    command.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help=f"state (default: {DEFAULT_FOLDER})"
    )
    return command


def _add_limit(command: argparse.ArgumentParser, purpose: str, seconds: int) -> None:
    command.add_argument(
        "--limit",
        type=float,
        default=seconds,
        metavar="SECONDS",
        help=f"time in which {purpose} (default: {seconds})",
    )
