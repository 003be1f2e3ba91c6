"""Whether a contestant answers as it must: what passes through it is compared with the original."""

import http.client
import json

from tests.bench.peers import payloads
from tests.bench.peers.payloads import CHAT, CHUNKS, MODEL

_ANSWER_SECS = 30.0


class Wrong(Exception):
    """A contestant does not answer as it must; the text says what it did."""


def check(port: int, *, rebuilds: bool = False) -> str:
    """Ask once whole and once streamed; return how much of the answer is the node's own.

    The payload must be the node's byte for byte; from a proxy that rebuilds its answers the same
    text, finish and usage are asked for. Raises Wrong, or OSError when nobody listens.
    """
    whole = _ask(port, payloads.body(stream=False, chunks=16))
    streamed = _ask(port, payloads.body(stream=True))
    frames = [payloads.content_frame(MODEL, number) for number in range(CHUNKS)]
    original = b"".join([*frames, *payloads.last_frames(MODEL, CHUNKS)])
    if (whole, streamed) == (payloads.whole(MODEL), original):
        return "every byte"
    if not rebuilds:
        which = "streamed" if whole == payloads.whole(MODEL) else "whole"
        raise Wrong(
            f"the {which} answer is not the node's: {(whole, streamed)[which != 'whole'][:200]!r}"
        )
    _same("whole answer", _read_whole(whole), _read_whole(payloads.whole(MODEL)))
    _same("stream", _read_stream(streamed), _read_stream(original))
    return "rebuilt"


def _same(what: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise Wrong(f"the {what} says {seen!r} instead of {expected!r}"[:600])


def _ask(port: int, body: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECS)
    try:
        headers = {"content-type": "application/json", "authorization": "Bearer sk-bench"}
        connection.request("POST", CHAT, body, headers)
        answer = connection.getresponse()
        said = answer.read()
    except http.client.HTTPException as error:
        raise Wrong(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise Wrong(f"HTTP {answer.status}: {said[:300]!r}")
    return said


def _read_whole(raw: bytes) -> tuple[object, ...]:
    value = json.loads(raw)
    (choice,) = value["choices"]
    return choice["message"]["content"], choice["finish_reason"], _usage(value)


def _read_stream(raw: bytes) -> tuple[object, ...]:
    text, finish, usage, ended = "", None, None, False
    for frame in raw.split(b"\n\n"):
        said = frame.removeprefix(b"data: ")
        if said == b"[DONE]":
            ended = True
        elif said.startswith(b"{"):
            value = json.loads(said)
            usage = _usage(value) if value.get("usage") else usage
            for choice in value["choices"]:
                text += choice["delta"].get("content") or ""
                finish = choice.get("finish_reason") or finish
    return text, finish, usage, ended


def _usage(value: dict[str, dict[str, int]]) -> tuple[int, int]:
    return value["usage"]["prompt_tokens"], value["usage"]["completion_tokens"]
