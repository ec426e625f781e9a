"""Dagster's webserver, which the registrar may tell to reload also where it is read-only.

Dagster counts reloading among what a read-only webserver refuses, and without it such a webserver
learns of a new location only when it is restarted. Nothing is launched or changed by it.
"""

from __future__ import annotations

from dagster._core.workspace.permissions import VIEWER_PERMISSIONS, Permissions
from dagster_webserver.cli import dagster_webserver


def main() -> None:
    """The command ``dagster-webserver``."""
    for reload in (Permissions.RELOAD_WORKSPACE, Permissions.RELOAD_REPOSITORY_LOCATION):
        VIEWER_PERMISSIONS[reload] = True
    dagster_webserver(auto_envvar_prefix="DAGSTER_WEBSERVER")


if __name__ == "__main__":
    main()
