"""The command line: its commands, and failures as messages and exit codes."""

from __future__ import annotations

import click

from forge_platform.cli.backfill import backfill
from forge_platform.cli.reconcile import reconcile
from forge_platform.cli.tables import tables
from forge_platform.cli.watermark import watermark
from forge_platform.errors import ForgeError, TransientError

PERMANENT = 3
TRANSIENT = 4


class _Commands(click.Group):
    """A group whose failures are told in one message."""

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command; a failure of the platform ends it with 3, one that may pass with 4."""
        try:
            return super().invoke(ctx)
        except ForgeError as error:
            click.echo(f"forge: {error}", err=True)
            ctx.exit(TRANSIENT if isinstance(error, TransientError) else PERMANENT)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Looks at the platform's tables from outside, and after them.

    Reads the same variables as a deployment: FORGE_ENVIRONMENT (dev if it is not set),
    ICEBERG_CATALOG_URI, ICEBERG_WAREHOUSE, the AWS_* ones, and DB_* for the source.

    Exit codes: 0 all is well; 1 differences were found, or what was launched failed; 2 wrong
    usage; 3 a failure that stays until something changes; 4 a failure that may pass by itself.
    """


main.add_command(tables)
main.add_command(watermark)
main.add_command(backfill)
main.add_command(reconcile)
