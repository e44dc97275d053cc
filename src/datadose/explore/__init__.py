"""The explorer: a local page where sliders set a shift and the exact curves move (extra ``explore``)."""

from __future__ import annotations

from datadose.errors import require_extra

require_extra("explore", "dash", "plotly", "waitress")

from datadose.explore.app import create_app, create_server  # noqa: E402
from datadose.explore.server import serve  # noqa: E402

__all__ = ["create_app", "create_server", "serve"]
