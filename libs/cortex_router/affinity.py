"""Which conversation a request belongs to, from what clients really send.

Agents say so in a header or in the body. For everybody else the conversation tells itself apart: by
its model, its system prompt and its first user message, which every later turn repeats. Sessions
that share a long system prompt differ in that message, so they are not taken for one.
"""

from collections.abc import Iterator, Mapping
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


def session_key(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    """Return what tells this request's conversation apart, None when it belongs to none.

    `headers` have lower-case names; `body` is any dialect's. Never raises, whatever is in them.
    """
    if not _SESSION_HEADERS.isdisjoint(headers):
        for name in SESSION_HEADERS:
            if key := _key(headers.get(name)):
                return f"{name}:{key}"
    if key := _key(body.get("prompt_cache_key")):
        return f"prompt_cache_key:{key}"
    if key := _metadata_session(body.get("metadata")):
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
    first = _first_message(body)
    if first is None:
        return None
    model = body.get("model")
    made = blake2b(digest_size=16)
    for text in (model if isinstance(model, str) else "", *_system(body), "\0", *first):
        made.update(_ends(text).encode("utf-8", "surrogatepass"))
        made.update(f"\x1f{len(text)}".encode())
    return made.hexdigest()


def _ends(text: str) -> str:
    """Return enough of a long text to tell it apart: reading all of it would cost more."""
    return text if len(text) <= 2 * _END else text[:_END] + text[-_END:]


def _first_message(body: Mapping[str, Any]) -> list[str] | None:
    """Return the texts of the first message that is not the system's; None without one."""
    if isinstance(body.get("input"), str) and "messages" not in body and "instructions" in body:
        return [body["input"]]
    for turn in _turns(body):
        if not _is_system(turn) and (texts := list(_texts(turn.get("content")))):
            return texts
    return None


def _system(body: Mapping[str, Any]) -> Iterator[str]:
    for value in (body.get("system"), body.get("instructions")):
        yield from (text for text in _texts(value) if not text.startswith(_BILLING))
    for turn in _turns(body):
        if not _is_system(turn):
            return
        yield from (t for t in _texts(turn.get("content")) if not t.startswith(_BILLING))


def _turns(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the turns of a chat, a Messages or a Responses request."""
    turns = body.get("messages", body.get("input"))
    if isinstance(turns, list):
        yield from (turn for turn in turns if isinstance(turn, Mapping) and "role" in turn)


def _is_system(turn: Mapping[str, Any]) -> bool:
    return turn.get("role") in _SYSTEM_ROLES


def _texts(content: object) -> Iterator[str]:
    """Return what a message says: its text, or of its parts the texts and what images are."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content[:_MOST_PARTS]:
            if isinstance(part, str):
                yield part
            elif isinstance(part, Mapping):
                yield from (
                    value
                    for name in ("text", "url", "data", "image_url")
                    if isinstance(value := _inner(part.get(name)), str)
                )


def _inner(value: object) -> object:
    """Return the address inside `{"url": …}`, anything else as it is."""
    return value.get("url") if isinstance(value, Mapping) else value


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
