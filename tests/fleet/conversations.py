"""Requests that tests make, and how their answers are read."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.fleet.processes import Daemon, eventually

CHAT = "/v1/chat/completions"


def entry(model: str, path: Path, **more: Any) -> dict[str, Any]:
    """A catalogue entry of the demo model under this id, with a small context."""
    return {
        "id": model,
        "source": str(path),
        **more,
        "options": {"context": 512, **more.get("options", {})},
    }


def say(model: str, text: str = "Say hello.", **more: Any) -> dict[str, Any]:
    """A chat request of a few tokens, answered the same way each time."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
        "temperature": 0,
        **more,
    }


def ask(daemon: Daemon, model: str, **more: Any) -> httpx.Response:
    """Ask and return the whole answer."""
    return daemon.http.post(f"{daemon.url}{CHAT}", json=say(model, **more))


@dataclass(slots=True)
class Streamed:
    """A streamed answer: frames with the moment each arrived."""

    frames: list[tuple[float, str]] = field(default_factory=list)

    def payloads(self) -> list[Any]:
        """Return the JSON of every data frame."""
        return [
            json.loads(line)
            for _, frame in self.frames
            for line in [frame.removeprefix("data: ")]
            if line.startswith("{")
        ]

    def text(self) -> str:
        """Return the generated text."""
        return "".join(
            choice["delta"].get("content") or ""
            for chunk in self.payloads()
            for choice in chunk.get("choices", [])
        )

    def errors(self) -> list[Any]:
        """Return the error events."""
        return [chunk["error"] for chunk in self.payloads() if "error" in chunk]

    @property
    def done(self) -> bool:
        """[DONE] came."""
        return any(frame == "data: [DONE]" for _, frame in self.frames)


def frames(response: httpx.Response) -> Iterator[tuple[float, str]]:
    """Yield the frames of a streamed response as they arrive."""
    open_end = ""
    for text in response.iter_text():
        open_end += text
        *whole, open_end = open_end.split("\n\n")
        for frame in whole:
            yield time.monotonic(), frame


def stream(daemon: Daemon, model: str, **more: Any) -> Streamed:
    """Ask for a stream and read it to its end."""
    streamed = Streamed()
    body = say(model, stream=True, **more)
    with daemon.http.stream("POST", f"{daemon.url}{CHAT}", json=body) as response:
        assert response.status_code == 200, response.read()
        streamed.frames.extend(frames(response))
    return streamed


class Talk:
    """A streamed request read in the background, so that tests can act in the middle of it."""

    def __init__(self, daemon: Daemon, model: str, **more: Any) -> None:
        self.streamed = Streamed()
        self.status = 0
        self.broken: httpx.HTTPError | None = None
        self._client = httpx.Client(timeout=60, trust_env=False)
        body = say(model, stream=True, **more)
        self._thread = threading.Thread(target=self._read, args=(f"{daemon.url}{CHAT}", body))
        self._thread.start()

    def under_way(self) -> None:
        """Wait until tokens are arriving."""
        eventually(lambda: len(self.streamed.frames) > 3, what="no tokens came")

    def end(self) -> Streamed:
        """Read to the end and return everything."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._client.close()
        return self.streamed

    def _read(self, url: str, body: dict[str, Any]) -> None:
        try:
            with self._client.stream("POST", url, json=body) as response:
                self.status = response.status_code
                for one in frames(response):
                    self.streamed.frames.append(one)
        except httpx.HTTPError as error:
            self.broken = error


def row(neuron: Daemon, model: str) -> dict[str, Any] | None:
    """Return the node's row of a model."""
    rows: list[dict[str, Any]] = neuron.http.get(f"{neuron.url}/models").json()
    return next((one for one in rows if one["id"] == model), None)


def status(neuron: Daemon, model: str) -> str | None:
    """Return the model's status on a node."""
    found = row(neuron, model)
    return None if found is None else found["status"]


def in_flight(neuron: Daemon, model: str) -> int:
    """Return how many requests a node counts for a model."""
    found = row(neuron, model)
    return 0 if found is None else int(found["in_flight"])
