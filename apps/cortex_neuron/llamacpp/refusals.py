"""What llama.cpp refuses, in our words: what is wrong with a request is its sender's to read.

Several of its refusals come as failures of the server (500); they are known by how they begin.
"""

import re
from collections.abc import Mapping
from typing import Any

import structlog

from cortex_core.errors import ApiError, InvalidRequest, ModelNotFound, UpstreamMalformed

log = structlog.get_logger()

_RAISED = re.compile(r"Jinja Exception: (.*)", re.DOTALL)
_TEMPLATE = ("While executing", "Unable to generate parser for this template")
_SCHEMA = re.compile(r"JSON schema error at (.*)", re.DOTALL)
_UNREADABLE = re.compile(r"Failed to parse (messages|tools|tool call arguments as JSON): ")
_LIBRARY = re.compile(r"\[json\.exception\.[\w.]+\] ")
_LONGEST = 500


def refusal(status: int, body: Any) -> ApiError:
    """Return the error that llama.cpp's status and body stand for.

    A refusal of the request is the client's to read; what failed inside the engine is not.
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    detail = error if isinstance(error, Mapping) else {}
    message = str(detail.get("message") or "the engine refused the request")
    if detail.get("type") == "exceed_context_size_error":
        limit, prompt = detail.get("n_ctx"), detail.get("n_prompt_tokens")
        return InvalidRequest(
            f"This model's maximum context length is {limit} tokens; the prompt has {prompt}.",
            code="context_length_exceeded",
            extra={"max": limit, "prompt_len": prompt},
        )
    if status == 404:  # noqa: PLR2004
        return ModelNotFound(message, code="unsupported_route")
    if status == 501:  # noqa: PLR2004
        return InvalidRequest(
            "this model is loaded to generate text, not for embeddings; list it (once more) with "
            'capabilities = ["embedding"]',
            code="wrong_modality",
        )
    if (known := _of_the_request(message)) is not None:
        return known
    if 400 <= status < 500:  # noqa: PLR2004
        return InvalidRequest(message)
    log.error("engine.failed", status=status, detail=message[:_LONGEST])
    return UpstreamMalformed("the engine failed on this request")


def _of_the_request(message: str) -> InvalidRequest | None:
    """Return what is wrong with the request, where the engine's words are of no use as they are."""
    if message.startswith("image input is not supported"):
        return InvalidRequest(
            "this model cannot see: it takes text, and the request has an image; "
            "choose a model with vision",
            code="vision_unsupported",
            param="messages",
        )
    if message.startswith("audio input is not supported"):
        return InvalidRequest(
            "this model cannot hear: it takes text, and the request has audio",
            code="audio_unsupported",
            param="messages",
        )
    if message == "unsupported content[].type":
        return InvalidRequest(
            "a message has a content part of a type that this model does not take; it takes 'text'",
            param="messages",
        )
    if found := _SCHEMA.search(message):
        return InvalidRequest(f"a JSON schema of the request cannot be used: at {found[1]}")
    if found := _UNREADABLE.match(message):
        where = "tools" if found[1] == "tools" else "messages"
        reason = _LIBRARY.sub("", message[found.end() :]).partition("; tools = ")[0]
        return InvalidRequest(f"'{where}' cannot be read: {reason[:_LONGEST]}", param=where)
    if found := _RAISED.search(message):
        return _template_refuses(f": {found[1].strip()[:_LONGEST]}")
    if any(word in message for word in _TEMPLATE):
        log.warning("template.failed", detail=message[:_LONGEST])
        return _template_refuses(" and says no reason")
    return None


def _template_refuses(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"the model's chat template refuses this conversation{why}",
        code="template_render_failed",
        param="messages",
    )
