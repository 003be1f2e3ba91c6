"""Entry of the `neuron` command; the commands themselves are in `commands`."""

import sys

from cortex_core.commands import Exit, Failure, needing

__all__ = ["main"]


def main() -> None:
    """Run the `neuron` command."""
    try:
        # The command line itself lives in an extra: without it, say so instead of a trace.
        with needing("neuron"):
            from cortex_neuron.commands import app
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(int(Exit.UNWELL))
    app()
