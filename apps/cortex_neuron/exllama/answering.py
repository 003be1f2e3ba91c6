"""From jobs to the frames of one stream: all its answers side by side, then what they cost.

A stop string is found in the text, not by the inference library: its job is given up there and
then. Whoever stops listening gives up every job.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol

from cortex_dialects import Usage
from cortex_neuron.exllama.engine_thread import EngineThread
from cortex_neuron.exllama.jobs import Broke, Ended, EndReason, Generated, Job, Started
from cortex_neuron.exllama.text_stream import Piece, TextStream


class Writer(Protocol):
    """Writes one answer as frames; any of them may be empty.

    `enough` is true when nothing more is wanted of it; `reasoning_tokens` counts its thoughts.
    """

    enough: bool
    reasoning_tokens: int

    def open(self) -> bytes:
        """Return what goes before the answer."""

    def say(self, piece: Piece) -> bytes:
        """Return what a piece of its text becomes."""

    def close(self, *, cut: bool, stopped_by: str | None) -> bytes:
        """Return its end. `cut`: it was not over; `stopped_by` is the stop string that ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer of a request: the job, and how its tokens become frames.

    `prompt` numbers the prompts of the request.
    """

    prompt: int
    job: Job
    text: TextStream
    writer: Writer


@dataclass(slots=True)
class Tally:
    """What the answers of a request cost, in tokens."""

    prompts: Mapping[int, int]
    completion: int = 0
    cached: dict[int, int] = field(default_factory=dict)
    writers: Sequence[Writer] = ()

    @classmethod
    def of(cls, choices: Sequence[Choice]) -> "Tally":
        """Return what `choices` cost before they begin. Answers to one prompt share it."""
        return cls(
            {choice.prompt: len(choice.job.prompt) for choice in choices},
            writers=[choice.writer for choice in choices],
        )

    def begin(self, choice: Choice, cached: int) -> None:
        """Take in how much of its prompt a choice found: the first of several reads it for all."""
        self.cached[choice.prompt] = min(cached, self.cached.get(choice.prompt, cached))

    def usage(self) -> Usage:
        """Return the costs so far."""
        return Usage(
            prompt=sum(self.prompts.values()),
            completion=self.completion,
            cached=sum(self.cached.values()),
            reasoning=sum(writer.reasoning_tokens for writer in self.writers) or None,
        )


async def frames(
    engine: EngineThread, choices: Sequence[Choice], tally: Tally
) -> AsyncGenerator[bytes, None]:
    """Yield the frames of all choices as they come. Raises the ApiError that ended one of them."""
    said: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
    tasks = [asyncio.create_task(_tell(engine, choice, tally, said)) for choice in choices]
    speaking = len(tasks)
    try:
        while speaking:
            match await said.get():
                case None:
                    speaking -= 1
                case bytes(frame):
                    yield frame
                case BaseException() as error:
                    raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(
    engine: EngineThread,
    choice: Choice,
    tally: Tally,
    said: "asyncio.Queue[bytes | BaseException | None]",
) -> None:
    try:
        async with aclosing(_frames_of(engine, choice, tally)) as told:
            async for frame in told:
                if frame:
                    said.put_nowait(frame)
    except Exception as error:  # noqa: BLE001  # whoever reads the frames raises it
        said.put_nowait(error)
    else:
        said.put_nowait(None)


async def _frames_of(
    engine: EngineThread, choice: Choice, tally: Tally
) -> AsyncGenerator[bytes, None]:
    text, writer = choice.text, choice.writer
    async with engine.running(choice.job) as events:
        async for event in events:
            match event:
                case Broke(error):
                    raise error
                case Started(cached):
                    tally.begin(choice, cached)
                    yield writer.open()
                case Generated(tokens, logprobs):
                    for token, logprob in zip_longest(tokens, logprobs):
                        tally.completion += 1
                        yield writer.say(text.feed(token, logprob))
                        if text.stopped_by is not None or writer.enough:
                            yield writer.close(cut=False, stopped_by=text.stopped_by)
                            return
                case Ended(reason, _):
                    tally.completion += reason is EndReason.STOP_TOKEN
                    yield writer.say(text.finish())
                    yield writer.close(cut=reason is EndReason.MAX_TOKENS, stopped_by=None)
