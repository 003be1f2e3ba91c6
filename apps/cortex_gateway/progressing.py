"""How far a cold load is, told to the client that waits for it: as thoughts, if it asked for that.

The words go through the client's own dialect as if a node had thought them, so every client shows
them where it shows thinking, and none takes them for the answer.
"""

from typing import Final

from cortex_core.wire import ModelInfo
from cortex_dialects import AnswerStream, frame_of
from cortex_gateway.accounting import Outcome
from cortex_gateway.fleet import Fleet
from cortex_uplink.client_request import ClientRequest

#: A client's wish: `1`, `true` or `yes`.
PROGRESS_HEADER: Final = "x-cortex-progress"
_WITHOUT_THOUGHTS: Final = "/v1/completions"
_YES: Final = frozenset({"1", "true", "yes"})
_ON_THE_WAY: Final = frozenset({"queued", "loading", "recovering"})
_MB: Final = 1e6


class LoadProgress:
    """What one waiting client is told of its model."""

    def __init__(self, fleet: Fleet, outcome: Outcome, stream: AnswerStream) -> None:
        self._fleet = fleet
        self._outcome = outcome
        self._stream = stream
        self._told = ""

    def news(self) -> bytes:
        """Return what to send now: nothing once a node is asked, or when nothing has changed."""
        outcome = self._outcome
        if outcome.phase != "waiting":
            return b""
        words = f"{self._words()}\n"
        if words == self._told:
            return b""
        self._told = words
        delta = {"role": "assistant", "content": None, "reasoning_content": words}
        chunk = {
            "id": f"chatcmpl-{outcome.request_id}",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": outcome.asked_for,
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        }
        told = self._stream.feed(frame_of(chunk))
        # It is no token of the model's.
        self._stream.first_token_seen = False
        return told

    def _words(self) -> str:
        model = self._fleet.view().resolve(self._outcome.asked_for)
        for name in sorted(self._fleet.nodes):
            row = self._fleet.nodes[name].models.get(model)
            if row is not None and row.status in _ON_THE_WAY:
                return f"{model} on {name}: {_how_far(row)}"
        return f"Waiting for {model}"


def load_progress(
    fleet: Fleet, request: ClientRequest, outcome: Outcome, stream: AnswerStream
) -> LoadProgress | None:
    """Return what the request's client is to be told, None if it did not ask for it."""
    wish = request.headers.get(PROGRESS_HEADER)
    if wish is None or wish.lower() not in _YES or outcome.route.startswith(_WITHOUT_THOUGHTS):
        return None
    return LoadProgress(fleet, outcome, stream)


def _how_far(row: ModelInfo) -> str:
    progress = row.progress
    if progress is None:
        return row.status
    if progress.done_bytes is None:
        return progress.phase
    done = f"{progress.phase} {progress.done_bytes / _MB:.1f}"
    return (
        f"{done} of {progress.total_bytes / _MB:.1f} MB" if progress.total_bytes else f"{done} MB"
    )
