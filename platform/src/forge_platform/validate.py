"""Compares a code location's image with where it is about to serve, before it does.

Helm runs ``python -m forge_platform.validate`` in the new image before a release is installed or
upgraded (see ``helm/code-location``). What does not fit ends it with a sentence each; the old
version goes on serving.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from importlib import import_module
from importlib.metadata import version
from typing import Any
from urllib.request import urlopen

import dagster as dg

from forge_platform.contracts import CONTRACTS, TableContract
from forge_platform.errors import PermanentError
from forge_platform.helm_values import CONTAINER_CONTEXT, merge, over_limit

CONTRACT_CHECK = "contract"
_KEY = "forge/key"
_SECONDS = 20
_NO_VERSION = (OSError, HTTPException, ValueError, KeyError)


def main(arguments: Sequence[str] | None = None) -> None:
    """Validates, prints what is wrong, and ends with 1 if anything is."""
    options = _parser().parse_args(arguments)
    # Dagster logs every import; what is wrong should be all there is to read.
    logging.disable(logging.WARNING)
    problems = validate(options.location, options.module, options.webserver)
    for problem in problems:
        sys.stdout.write(f"refused: {problem}\n")
    if problems:
        sys.exit(1)
    sys.stdout.write(f"{options.location} fits.\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m forge_platform.validate", description=__doc__)
    parser.add_argument("--location", required=True, help="name of the code location")
    parser.add_argument("--module", required=True, help="module that holds its definitions")
    parser.add_argument("--webserver", help="URL of the platform's webserver; else not compared")
    return parser


def validate(location: str, module: str, webserver: str | None = None) -> list[str]:
    """Everything because of which a location must not be served, each as one sentence.

    Args:
        location: the code location's name.
        module: the module that holds its definitions.
        webserver: URL of the platform's webserver; None compares no version.
    """
    try:
        definitions = load(module)
    # A module that ends the process, with 0 too, would otherwise pass.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a team's module may fail in any way
        return [f"the definitions of {module} do not load: {type(error).__name__}: {error}"]
    return [
        *contract_problems(location, definitions),
        *(version_problems(webserver) if webserver else ()),
        *instance_problems(),
    ]


def load(module: str) -> dg.Definitions:
    """The definitions of a module, every job and resource of them built."""
    found = [
        value for value in vars(import_module(module)).values() if isinstance(value, dg.Definitions)
    ]
    if len(found) != 1:
        raise PermanentError(f"{module} must hold one dagster.Definitions, and holds {len(found)}.")
    dg.Definitions.validate_loadable(found[0])
    return found[0]


def contract_problems(location: str, definitions: dg.Definitions) -> list[str]:
    """What a location owes to the contracts of what it makes and of what it reads."""
    graph = definitions.resolve_asset_graph()
    made = {key.to_user_string() for key in graph.materializable_asset_keys}
    known = {contract.asset for contract in CONTRACTS}
    owed = [contract for contract in CONTRACTS if contract.location == location]
    return [
        *(
            f"{contract.identifier} is under contract, and no asset of that name is here"
            for contract in owed
            if contract.asset not in made
        ),
        *(
            problem
            for contract in owed
            if contract.asset in made
            for problem in _promise_problems(contract, definitions)
        ),
        *(
            f"{key} of another location is read without a contract in forge_platform.contracts"
            for key in sorted(key.to_user_string() for key in graph.external_asset_keys)
            if key not in known
        ),
    ]


def _promise_problems(contract: TableContract, definitions: dg.Definitions) -> Iterator[str]:
    graph = definitions.resolve_asset_graph()
    check = dg.AssetCheckKey(contract.asset_key, CONTRACT_CHECK)
    if check not in graph.asset_check_keys:
        yield f"{contract.identifier} has no check `{CONTRACT_CHECK}`: add contract_check()"
    node = graph.get(contract.asset_key)
    key = node.metadata.get(_KEY)
    if key != ",".join(contract.key):
        yield f"{contract.identifier} has the key {key}, its contract ({', '.join(contract.key)})"
    if node.partitions_def != contract.partitions:
        yield f"{contract.identifier} is not partitioned as its contract says"


def version_problems(webserver: str) -> list[str]:
    """Whether this image's Dagster and the platform's may differ so much."""
    url = f"{webserver.rstrip('/')}/server_info"
    try:
        theirs = _version_at(url)
    except _NO_VERSION as error:
        return [f"the platform's webserver does not tell its version at {url}: {error}"]
    ours = version("dagster")
    if _series(ours) == _series(theirs):
        return []
    wanted = ".".join(_series(theirs))
    problem = (
        f"this image has Dagster {ours} and the platform {theirs}: build it from a lock with "
        f"Dagster {wanted}, or upgrade the platform first"
    )
    return [problem]


def _version_at(url: str) -> str:
    """Dagster's version at a webserver, which may be about to start."""
    end = time.monotonic() + _SECONDS
    while True:
        try:
            with urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - the URL is the release's
                return str(json.load(answer)["dagster_version"])
        except _NO_VERSION:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def _series(text: str) -> tuple[str, str]:
    major, minor, *_ = text.split(".")
    return major, minor


def instance_problems() -> list[str]:
    """Whether the platform's instance can be used with this image's libraries."""
    try:
        with dg.DagsterInstance.get() as instance:
            instance.get_run_records(limit=1)
            instance.all_asset_keys()
            _ = instance.compute_log_manager  # made when it is first asked for
            context = os.environ.get(CONTAINER_CONTEXT)
            return launch_problems(instance, json.loads(context)) if context else []
    except Exception as error:  # noqa: BLE001 - storage and compute log classes fail as they like
        return [f"the platform's instance cannot be used: {type(error).__name__}: {error}"]


def launch_problems(instance: dg.DagsterInstance, context: Mapping[str, Any]) -> list[str]:
    """Whether Kubernetes would take what the platform and the location say of run pods together.

    Args:
        instance: the platform's; its launcher is not made, which needs the API server.
        context: what the code server hands to the launcher.
    """
    launcher = instance.get_ref().run_launcher_data
    platform = launcher.config_dict if launcher else {}
    # As the launcher merges them. Its own classes take a second and a half to import.
    names = over_limit(merge(platform.get("resources", {}), context["k8s"].get("resources", {})))
    problem = (
        f"a run would request more {names} than its limit, one of which is the platform's: set "
        "both in run.resources"
    )
    return [problem] if names else []


if __name__ == "__main__":
    main()
