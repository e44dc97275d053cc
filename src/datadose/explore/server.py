"""Serving the explorer on this machine."""

from __future__ import annotations

import errno
import sys

import waitress

from datadose.errors import reject, require_integer
from datadose.explore.app import create_app
from datadose.explore.simulations import Simulations
from datadose.explore.uploads import LARGEST_REQUEST

HOST = "127.0.0.1"


def serve(port: int = 8050) -> None:
    """Serve the explorer on 127.0.0.1 until interrupted; port 0 takes a free one. Prints the address.

    Raises InputError where the port is out of range, taken or forbidden.
    """
    require_integer("port", port, 0, 65535)
    simulations = Simulations()
    application = create_app(simulations).server
    try:
        server = waitress.create_server(
            application, host=HOST, port=port, threads=6, max_request_body_size=LARGEST_REQUEST
        )
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reject("port", port, f"a port that is free and permitted ({error.strerror}); 0 takes any")
    print(f"datadose explorer: http://{HOST}:{server.effective_port}/  (Ctrl-C stops it)", flush=True)
    try:
        server.run()
    finally:
        simulations.close()
        server.close()
        print("stopped", file=sys.stderr)
