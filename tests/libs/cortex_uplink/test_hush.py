"""Failures in crowds: ten lines, then a number; late answers for those who go on."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from structlog.testing import capture_logs

from cortex_uplink.hush import Hush


async def test_the_first_have_a_line_and_the_rest_a_number() -> None:
    """By address; what is kept back is told when the window ends, then all begins anew."""
    hush = Hush("many", window_secs=0.05)
    with capture_logs() as logs:
        worth = [hush.worth_a_line("10.0.0.1") for _ in range(25)]
        assert hush.worth_a_line("10.0.0.2")
        await _until(logs)

    assert worth == [True] * 10 + [False] * 15
    assert logs == [{"event": "many", "log_level": "warning", "address": "10.0.0.1", "more": 15}]
    assert hush.worth_a_line("10.0.0.1")


async def test_a_million_addresses_are_not_remembered_one_by_one() -> None:
    """Beyond a thousand they are counted together."""
    hush = Hush("many", window_secs=0.05)
    with capture_logs() as logs:
        worth = [hush.worth_a_line(f"10.0.{number}") for number in range(1500)]
        await _until(logs)

    assert sum(worth) == 1010
    assert logs == [{"event": "many", "log_level": "warning", "address": "elsewhere", "more": 490}]


async def test_only_who_failed_often_waits() -> None:
    """Twenty are answered at once."""
    hush = Hush("many")
    for _ in range(20):
        async with asyncio.timeout(0.5):
            await hush.slow_down("10.0.0.1")
        hush.worth_a_line("10.0.0.1")

    late = asyncio.create_task(hush.slow_down("10.0.0.1"))
    async with asyncio.timeout(0.5):
        await hush.slow_down("10.0.0.2")
    assert not late.done()
    await late


async def _until(logs: list[MutableMapping[str, Any]]) -> None:
    async with asyncio.timeout(5):
        while not logs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
