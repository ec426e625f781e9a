"""TCP ports of this machine."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from forge_platform.errors import ConfigurationError

HOST = "127.0.0.1"
_TRIES = 100


def free_ports(count: int) -> list[int]:
    """Different free ports, chosen by the system."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def first_free_port(wanted: int) -> int:
    """The port that is wanted, or the next one that is free.

    Raises:
        ConfigurationError: it and the hundred after it are taken.
    """
    candidates = range(wanted, min(wanted + _TRIES, 65_536))
    for port in candidates:
        if is_free(port):
            return port
    raise ConfigurationError(
        f"The ports {wanted} to {candidates[-1]} are taken: choose another one with PORT=…"
    )


def is_open(port: int) -> bool:
    """Whether a server on this machine accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def is_free(port: int) -> bool:
    """Whether a server could listen on the port."""
    with socket.socket() as probe:
        # As servers do: a port is free although connections of its last owner are closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
