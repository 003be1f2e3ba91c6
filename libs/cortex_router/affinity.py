"""Which conversation a request belongs to, from what clients really send.

Agents say so in a header or in the body. For everybody else the conversation tells itself apart: by
its model, its system prompt and its first user message, which every later turn repeats. Sessions
that share a long system prompt differ in that message, so they are not taken for one.
"""

from collections.abc import Mapping
from hashlib import blake2b
from json import JSONDecodeError, loads
from typing import Any, Final

#: Headers that name a conversation: Claude Code, Codex, and what other gateways taught clients.
SESSION_HEADERS: Final = (
    "x-claude-code-session-id",
    "session-id",
    "session_id",
    "thread-id",
    "x-session-id",
    "x-session-affinity",
    "x-opencode-session",
    "x-amp-thread-id",
    "x-litellm-session-id",
    "x-bf-session-id",
)
_SESSION_HEADERS = frozenset(SESSION_HEADERS)
LONGEST_KEY = 128
#: A system block that some clients put in front, which changes from version to version.
_BILLING = "x-anthropic-billing-header:"
_SYSTEM_ROLES = ("system", "developer")
#: Characters of text that make a token, as a rule of thumb, with JSON's own characters in it.
CHARACTERS_PER_TOKEN = 4
#: Parts of a message beyond this are not looked at: a first message tells itself apart earlier.
_MOST_PARTS = 64
#: Of a longer text, so many characters from each end.
_END = 1024
#: Asking for the one that it nearly always is first spares the slow look for an abstract one.
_MAPPING = (dict, Mapping)


def session_key(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    """Return what tells this request's conversation apart, None when it belongs to none.

    `headers` have lower-case names; `body` is any dialect's. Never raises, whatever is in them.
    """
    if not _SESSION_HEADERS.isdisjoint(headers):
        for name in SESSION_HEADERS:
            if key := _key(headers.get(name)):
                return f"{name}:{key}"
    if (told := body.get("prompt_cache_key")) is not None and (key := _key(told)):
        return f"prompt_cache_key:{key}"
    if (told := body.get("metadata")) is not None and (key := _metadata_session(told)):
        return f"metadata:{key}"
    digest = _conversation(body)
    if digest is None:
        return None
    # One user has many conversations, so the name alone tells too little.
    user = _key(body.get("user"))
    return f"digest:{digest}:{user}" if user else f"digest:{digest}"


def rough_tokens(body_bytes: int) -> int:
    """Return about how many tokens a request body of this size has."""
    return body_bytes // CHARACTERS_PER_TOKEN


def _key(value: object) -> str | None:
    """Return a usable key: text of a bounded length; a longer one by its digest."""
    if not isinstance(value, str) or not (text := value.strip()):
        return None
    return text if len(text) <= LONGEST_KEY else _digest(text)


def _metadata_session(metadata: object) -> str | None:
    """Return Claude Code's `metadata.user_id` → `session_id`: an object, or one as JSON text."""
    if not isinstance(metadata, Mapping):
        return None
    user = metadata.get("user_id")
    if isinstance(user, str) and user.startswith("{") and len(user) <= LONGEST_KEY * 8:
        try:
            user = loads(user)
        except (JSONDecodeError, RecursionError):
            return None
    return _key(user.get("session_id")) if isinstance(user, Mapping) else None


def _conversation(body: Mapping[str, Any]) -> str | None:
    """Return the digest of model, system text and first user message."""
    # On the path of every request, so one pass and few calls.
    told: list[str] = []
    for name in ("system", "instructions"):
        if (value := body.get(name)) is not None:
            told += [text for text in _texts(value) if not text.startswith(_BILLING)]
    first: list[str] = []
    if isinstance(body.get("input"), str) and "messages" not in body and "instructions" in body:
        first = [body["input"]]
    at_top = True
    turns = body.get("messages", body.get("input"))
    for turn in turns if isinstance(turns, list) else ():
        if first:
            break
        if not isinstance(turn, _MAPPING) or "role" not in turn:
            continue
        content = turn.get("content")
        texts = [content] if content.__class__ is str else _texts(content)
        if turn["role"] not in _SYSTEM_ROLES:
            at_top = False
            first = texts
        elif at_top:
            told += [text for text in texts if not text.startswith(_BILLING)]
    if not first:
        return None
    model = body.get("model")
    parts = [model if isinstance(model, str) else "", *told, "\0", *first]
    said = "".join(
        [f"{text if len(text) <= 2 * _END else _ends(text)}\x1f{len(text)}" for text in parts]
    )
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _ends(text: str) -> str:
    """Return enough of a long text to tell it apart: reading all of it would cost more."""
    return text[:_END] + text[-_END:]


def _texts(content: object) -> list[str]:
    """Return what a message says: its text, or of its parts the texts and what images are."""
    if isinstance(content, str):
        return [content]
    texts: list[str] = []
    for part in content[:_MOST_PARTS] if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, _MAPPING):
            for name in ("text", "url", "data", "image_url"):
                value = part.get(name)
                value = value.get("url") if isinstance(value, _MAPPING) else value
                if isinstance(value, str):
                    texts.append(value)
    return texts


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
