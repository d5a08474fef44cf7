# Whether a server can listen at an address, asked before anything slow is loaded for it.
from __future__ import annotations

import errno
import socket

LOCAL = "127.0.0.1"


def check_port(host: str, port: int) -> None:
    """Raise OSError or ValueError, in one sentence, unless a server can listen there."""
    if not 0 < port < 65536:
        raise ValueError(f"--port {port} is not a port; choose one from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(f"port {port} is in use; choose another one with --port") from error
            raise OSError(
                f"cannot listen on --host {host} --port {port} ({error.strerror})"
            ) from error
