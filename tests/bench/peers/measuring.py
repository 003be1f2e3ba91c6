"""`peers`: what cortex costs beside nginx, two Rust routers and LiteLLM, before one mock node."""

import sys
from dataclasses import asdict
from pathlib import Path

from tests.bench.peers.comparison import (
    MANY_STREAMS,
    PACED_STREAMS,
    SLOW_PACED_STREAMS,
    STREAMS,
    compare,
)
from tests.bench.peers.loading import WRK_CONNECTIONS
from tests.bench.peers.packages import Missing
from tests.bench.peers.payloads import CHUNKS, PACE_MS
from tests.bench.peers.plots import draw
from tests.bench.peers.verdicts import Results, tables
from tests.bench.reporting import Report

METHOD = """\
Everybody runs at once, on loopback, before the same mock node, which answers from prepared bytes;
one contestant is under load at a time. {rounds} rounds, everybody in turn, the first one rotating,
after a warm-up; each load lasts about {secs:g} s, LiteLLM's requests three times that. CPU is what
the kernel booked on the contestant's whole process tree, user and system, divided by the answers
or content chunks its clients got; a stream's own request is part of its chunks' cost. Load
generators and mock node share the cores with the contestant: that lowers throughput and worsens
latency for everybody, and lets chunks arrive together, which makes each cheaper (see `chunks a
read`). Other work on the machine does the same: measure on an idle one.
requests: wrk, {wrk} connections, an answer of some 600 bytes. unpaced: {streams} streams at a time,
of {chunks} chunks; the node writes each by itself and gives every stream one before any gets its
next. paced: {paced} streams (LiteLLM: {slow}), one chunk each {pace} ms. many: {many} of those.
translated: the same streams asked for as /v1/messages. Stalls: the longest gap between two chunks
of a stream as they arrived, less the pace; `direct` shows what generators and node add to it.
The routers run with one worker and their cheapest policy, round_robin; nginx without buffering,
with a log; cortex as it comes, its log in a file. Ratios are taken within a round."""


def measure(*, rounds: int, secs: float, plots: Path) -> Report:
    """Compare everybody who can be had; write the pictures into `plots`."""
    try:
        compared = compare(rounds=rounds, secs=secs, tell=lambda text: print(text, file=sys.stderr))
    except Missing as error:
        return Report(name="peers", method=f"Not measured: {error}", tables=[])
    pictures = draw(Results(compared), plots)
    method = METHOD.format(
        rounds=rounds,
        secs=secs,
        wrk=WRK_CONNECTIONS,
        streams=STREAMS,
        chunks=CHUNKS,
        paced=PACED_STREAMS,
        slow=SLOW_PACED_STREAMS,
        pace=PACE_MS,
        many=MANY_STREAMS,
    )
    drawn = ", ".join(str(file) for file in pictures)
    return Report(
        name="peers",
        method=f"{method}\nPictures: {drawn}",
        tables=tables(compared),
        samples=[asdict(one) for one in compared.samples],
    )
