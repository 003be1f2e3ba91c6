"""The `cortex` command: run the gateway, look at the fleet, load and unload models.

Modules: `app` (the table of commands), `daemon` (serve, up, config, version), `fleet` (status,
models, load, unload), `requests` (ps, cancel), `top`, `logs`, `chat`, `keys`; `configuration`
(files to settings), `asking` (HTTP to cortex), `view` (what cortex answers), `showing` and
`request_tables` (how it looks), `loading` (how far a load is), `conversing` (a streamed answer).
"""

import sys

from cortex_core.commands import Failure, needing

__all__ = ["main"]


def main() -> None:
    """Run the `cortex` command."""
    try:
        # The command line itself lives in an extra: without it, say so instead of a trace.
        with needing("gateway"):
            from cortex_gateway.cli.app import app  # noqa: PLC0415
    except Failure as failure:
        sys.exit(str(failure))
    app()
