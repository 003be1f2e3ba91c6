"""Count a prompt's tokens exactly, with the model's own template and tokenizer, without loading it.

llama.cpp has no vocabulary-only mode that applies chat templates, so a small engine does it: a few
cells of context, no warm-up, no accelerator, weights mapped from the file and hardly touched. At
most two such processes live at a time; one that nobody used for a while is stopped.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from orjson import dumps, loads

from cortex_core.errors import InvalidRequest, UpstreamMalformed, UpstreamUnreachable
from cortex_neuron.engine_process import EngineProcess, child_environment
from cortex_neuron.lending import Lending, Lost
from cortex_neuron.llamacpp.conversing import conversation
from cortex_neuron.llamacpp.harness import start_child
from cortex_neuron.llamacpp.options import LlamaCppOptions
from cortex_neuron.llamacpp.program import find_program
from cortex_neuron.llamacpp.refusals import refusal

_CELLS = 64
_START_SECS = 120.0
_ANSWER_SECS = 60.0
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError)
_TEXTS = ("prompt", "input", "content")


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """A process, and the word that it wants to hear."""

    process: EngineProcess
    secret: str

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.alive

    async def stop(self, timeout_secs: float) -> None:
        """End it, by force after `timeout_secs`."""
        await self.process.stop(timeout_secs)


class Tokenizers:
    """The vocabulary processes of one node."""

    def __init__(
        self,
        *,
        limit: int = 2,
        idle_secs: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._lending: Lending[_Vocabulary] = Lending(limit, idle_secs)
        self._environment = dict(os.environ if environment is None else environment)
        self._client = httpx.AsyncClient(timeout=_ANSWER_SECS, trust_env=False)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run now."""
        return self._lending.pids

    async def count(self, path: Path, model_id: str, request: Mapping[str, Any]) -> int:
        """Return the prompt tokens of a chat, or of text as `prompt`, `input` or `content`.

        Raises InvalidRequest for what cannot be counted, and what `start_child` raises.
        """
        texts = None if "messages" in request else _texts(request)
        try:
            return await self._count(path, model_id, request, texts)
        except Lost:
            pass  # It died while it was idle, and nobody had noticed: once more with a new one.
        try:
            return await self._count(path, model_id, request, texts)
        except Lost as error:
            raise UpstreamUnreachable("the model's tokenizer went away; try again") from error

    async def aclose(self) -> None:
        """Stop every process."""
        await self._lending.aclose()
        await self._client.aclose()

    async def _count(
        self, path: Path, model_id: str, chat: Mapping[str, Any], texts: list[str | int] | None
    ) -> int:
        async with self._lending.borrowed(path, lambda: self._start(path, model_id)) as lent:
            process, secret = lent.process, lent.secret
            url = process.ready["url"]
            if texts is not None:
                return sum([await self._count_text(url, secret, text) for text in texts])
            *others, last = conversation(chat, knows_tools=process.ready["knows_tools"]).bodies
            for body in others:
                try:
                    return await self._count_chat(url, secret, body)
                except InvalidRequest as error:
                    if error.code != "template_render_failed":
                        raise
            return await self._count_chat(url, secret, last)

    async def _count_chat(self, url: str, secret: str, chat: Mapping[str, Any]) -> int:
        answer = await self._ask(f"{url}/v1/chat/completions/input_tokens", secret, chat)
        return _count(answer.get("input_tokens"))

    async def _count_text(self, url: str, secret: str, text: str | int) -> int:
        if isinstance(text, int):
            return 1
        question = {"content": text, "add_special": True, "parse_special": True}
        answer = await self._ask(f"{url}/tokenize", secret, question)
        tokens = answer.get("tokens")
        return _count(len(tokens) if isinstance(tokens, list) else None)

    async def _ask(self, url: str, secret: str, question: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        try:
            response = await self._client.post(url, content=dumps(question), headers=headers)
            answer = loads(response.content)
        except _LOST as error:
            raise Lost from error
        except httpx.HTTPError as error:
            raise UpstreamUnreachable("the model's tokenizer does not answer") from error
        except ValueError as error:
            raise UpstreamMalformed("the model's tokenizer answered nonsense") from error
        if response.status_code != httpx.codes.OK:
            raise refusal(response.status_code, answer)
        if not isinstance(answer, dict):
            raise UpstreamMalformed("the model's tokenizer answered nonsense")
        return answer

    async def _start(self, path: Path, model_id: str) -> _Vocabulary:
        secret = secrets.token_urlsafe(32)
        options = LlamaCppOptions.model_construct()
        task = {
            **options.model_dump(exclude={"start_timeout_secs", "shared_context"}),
            "parent_pid": os.getpid(),
            "program": find_program(self._environment),
            "model_id": model_id,
            "path": str(path),
            "secret": secret,
            "cells": _CELLS,
            "parallel": 1,
            "unified": True,
            "batch": _CELLS,
            "ubatch": _CELLS,
            "threads": 1,
            "gpu_layers": 0,
            "embedding": False,
            "warmup": False,
            "reorder": False,
        }
        hidden = {"CUDA_VISIBLE_DEVICES": "", "GGML_NO_BACKTRACE": "1"}
        process = await start_child(
            task,
            title=f"{model_id} (tokenizer)",
            environment=child_environment(self._environment, hidden),
            timeout_secs=_START_SECS,
        )
        return _Vocabulary(process, secret)


def _texts(request: Mapping[str, Any]) -> list[str | int]:
    """Return the texts, or ready-made tokens, that make up a plain prompt."""
    value = next((request[key] for key in _TEXTS if key in request), None)
    parts = value if isinstance(value, list) else [value]
    flat = list[str | int]()
    for one in (one for part in parts for one in (part if isinstance(part, list) else [part])):
        if not isinstance(one, str | int) or isinstance(one, bool):
            raise InvalidRequest("give 'messages', or text as 'prompt', 'input' or 'content'")
        flat.append(one)
    return flat


def _count(number: object) -> int:
    if not isinstance(number, int):
        raise UpstreamMalformed("the model's tokenizer answered nonsense")
    return number
