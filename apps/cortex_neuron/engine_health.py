"""Asks an engine whether it is well: `GET /health`, on a connection of its own.

200 is well. Anything else is not, and that is also how an engine says that its generator hangs
though it still answers.
"""

from http import HTTPStatus

from cortex_neuron.harness import Engine
from cortex_uplink import Limits, Uplink, UplinkError

_LIMITS = Limits(connect=5.0, first_byte=5.0, idle=5.0)
_MOST_BYTES = 1 << 16


class HealthCheck:
    """Asks over the same path as requests take."""

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink

    async def __call__(self, engine: Engine) -> bool:
        """Return whether the engine says that it is well, within a few seconds."""
        try:
            async with self._uplink.open(
                f"{engine.url}/health",
                body=b"",
                headers=engine.headers,
                method="GET",
                limits=_LIMITS,
            ) as answer:
                await answer.read(_MOST_BYTES)
                return answer.status == HTTPStatus.OK
        except UplinkError:
            return False
