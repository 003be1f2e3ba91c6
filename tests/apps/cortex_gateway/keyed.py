"""A gateway with keys in front of a node of another make, for tests."""

import itertools
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from cortex_core.keys import add_key, new_secret, revoke_key
from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, fake_neuron
from tests.fleet.processes import Daemon, Workbench, eventually, workbench

MODEL, OTHER = "org/a", "org/b"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
TALK = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
_NUMBERS = itertools.count()
PAST = datetime(2020, 1, 1, tzinfo=UTC)


def bearer(secret: str) -> dict[str, str]:
    """Return how OpenAI's clients send a key."""
    return {"authorization": f"Bearer {secret}"}


@dataclass(slots=True)
class Keyed:
    """The gateway, its node, and the keys by their names."""

    bench: Workbench
    node: FakeNeuron
    cortex: Daemon
    file: Path
    secrets: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, **limits: Any) -> str:
        """Enter a key in the file and return it; cortex does not know it yet."""
        secret = self.secrets[name] = new_secret()
        add_key(self.file, secret, name=name, **limits)
        return secret

    def ask(self, secret: str, path: str = CHAT, **body: Any) -> httpx.Response:
        """Ask for an answer with a key."""
        return self.cortex.http.post(
            f"{self.cortex.url}{path}", json={**TALK, **body}, headers=bearer(secret)
        )

    def get(self, path: str, secret: str | None = None) -> httpx.Response:
        """Get something, with a key or without."""
        headers = {} if secret is None else bearer(secret)
        return self.cortex.http.get(f"{self.cortex.url}{path}", headers=headers)

    def exposition(self) -> str:
        """Return what Prometheus sees."""
        url = self.bench.metrics_url(self.cortex)
        return self.cortex.http.get(url, headers=bearer(self.secrets["root"])).text

    def counted(self, series: str) -> float:
        """Return the value of a series, 0 while there is none."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.exposition(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def lines_of(self, answer: httpx.Response) -> list[dict[str, Any]]:
        """Return every log line about the request, of which there is one at least."""
        name = answer.headers["x-request-id"]
        return eventually(
            lambda: [line for line in self.cortex.log() if line.get("request_id") == name]
        )


def other_client() -> httpx.Client:
    """Return a client with an address of its own, where loopback has more than one.

    Whoever is refused often is answered late, and tests are.
    """
    several = sys.platform == "linux"
    number = next(_NUMBERS)
    address = f"127.0.{2 + number // 250 % 250}.{1 + number % 250}" if several else None
    transport = httpx.HTTPTransport(local_address=address, verify=False)
    return httpx.Client(transport=transport, trust_env=False, timeout=60)


@contextmanager
def keyed(folder: Path) -> Iterator[Keyed]:
    """A running gateway that knows a few keys."""
    node = FakeNeuron(total_mb=2000, sizes={MODEL: 600, OTHER: 600})
    node.hold(MODEL)
    node.hold(OTHER)
    with fake_neuron(node), workbench(folder) as bench:
        cortex = Daemon("none", [], folder / "none.log", "", "")
        made = Keyed(bench, node, cortex, folder / "keys.toml")
        made.add("root", admin=True)
        made.add("alice")
        made.add("narrow", models=("nick-*",))
        made.add("late", expires=PAST)
        made.add("gone")
        revoke_key(made.file, "gone")
        made.add("three", requests_per_minute=3)
        made.add("sparing", tokens_per_minute=20)
        made.add("single", max_in_flight=1)
        made.add("leaver", max_in_flight=1, tokens_per_minute=1000)
        made.cortex = bench.cortex(
            {"old": node.url},
            [{"id": one, "harness": "candle", "vram_mb": 600} for one in (MODEL, OTHER)],
            {"nick-a": MODEL},
            observation={"poll_secs": 0.1},
            access={"keys_file": "keys.toml"},
        )

        def loaded() -> bool:
            rows = made.get("/v1/models", made.secrets["root"]).json()["data"]
            return all(row["loaded"] for row in rows)

        eventually(loaded)
        yield made
