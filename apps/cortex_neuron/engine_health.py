"""Asks an engine whether it is well: `GET /health`, on a connection of its own.

A failure (500 and above) says that the engine hangs inside though it still answers; anything else
that it answers is a sign of life.
"""

from http import HTTPStatus

from cortex_neuron.hanging import Answer
from cortex_neuron.harness import Engine
from cortex_uplink import Limits, Uplink, UplinkError

_LIMITS = Limits(connect=5.0, first_byte=5.0, idle=5.0)
_MOST_BYTES = 1 << 16


class HealthCheck:
    """Asks over the same path as requests take."""

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink

    async def __call__(self, engine: Engine) -> Answer:
        """Return what the engine says, within a few seconds."""
        try:
            async with self._uplink.open(
                f"{engine.url}/health",
                body=b"",
                headers=engine.headers,
                method="GET",
                limits=_LIMITS,
            ) as answer:
                await answer.read(_MOST_BYTES)
                failed = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
                return Answer.UNWELL if failed else Answer.WELL
        except UplinkError:
            return Answer.NONE
