"""Entry of the `neuron` command; the commands themselves are in `commands`."""

import sys

from cortex_core.commands import Failure, needing

__all__ = ["main"]


def main() -> None:
    """Run the `neuron` command."""
    try:
        # The command line itself lives in an extra: without it, say so instead of a trace.
        with needing("neuron"):
            from cortex_neuron.commands import app  # noqa: PLC0415
    except Failure as failure:
        sys.exit(str(failure))
    app()
