"""Serving the explorer on this machine."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias

import waitress
from waitress.channel import HTTPChannel

from datadose.errors import reject, require_integer
from datadose.explore.app import create_app
from datadose.explore.simulations import Simulations
from datadose.explore.uploads import LARGEST_REQUEST

HOST = "127.0.0.1"
MOST_CONNECTIONS = 500
SLOWEST_REQUEST = 20
"""Seconds that a request may take to arrive; a connection that is idle is closed after as long."""
Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve(port: int = 8050) -> None:
    """Serve the explorer on 127.0.0.1 until interrupted; port 0 takes a free one. Prints the address.

    Raises InputError where the port is out of range, taken or forbidden.
    """
    simulations = Simulations()
    server = create_local_server(create_app(simulations).server, port)
    print(f"datadose explorer: http://{HOST}:{server.effective_port}/  (Ctrl-C stops it)", flush=True)
    try:
        server.run()
    finally:
        simulations.close()
        server.close()
        print("stopped", file=sys.stderr)


def create_local_server(application: Application, port: int) -> Any:
    """A server of ``application`` on 127.0.0.1 that answers this machine's own browser only.

    Connections that send nothing, or a byte now and then, are closed and cannot fill it.
    """
    require_integer("port", port, 0, 65535)
    # On a busy machine requests wait for a thread, which is no news to the user.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    hosts: set[str] = set()
    try:
        server = waitress.create_server(
            only_hosts(application, hosts),
            host=HOST,
            port=port,
            threads=6,
            max_request_body_size=LARGEST_REQUEST,
            connection_limit=MOST_CONNECTIONS,
            channel_timeout=SLOWEST_REQUEST,
            cleanup_interval=SLOWEST_REQUEST // 4,
            asyncore_use_poll=True,
        )
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reject("port", port, f"a port that is free and permitted ({error.strerror}); 0 takes any")
    server.channel_class = _Channel
    taken = int(server.effective_port)
    for name in (HOST, "localhost", "[::1]"):
        # Browsers leave out the port of the web.
        hosts |= {f"{name}:{taken}"} | ({name} if taken == 80 else set())
    return server


def only_hosts(application: Application, hosts: Collection[str]) -> Application:
    """``application`` for requests to ``hosts`` ("name:port"); others are answered with status 421.

    A page from elsewhere whose name was made to lead to this machine still sends its own name.
    """

    def check(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").lower()
        if host in hosts:
            return application(environ, start)
        body = f"host: got {host[:100]!r}; allowed: {', '.join(sorted(hosts))}\n".encode()
        start("421 Misdirected Request", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return check


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection whose time runs from the start of a request, not from its last byte."""

    last_activity: float

    def handle_read(self) -> None:
        unfinished, since = self.request, float(self.last_activity)
        super().handle_read()
        if unfinished is not None and self.request is unfinished:
            self.last_activity = since
