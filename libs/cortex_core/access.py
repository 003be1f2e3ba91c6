"""What an API key allows, and whom a request is from: values and decisions, without a clock.

Keys are 256 random bits and are known by their SHA-256 only: nobody gets from one to the other, and
there is nothing that a slower digest would make harder. Whether a key is known is a look into a
table by that digest, which nobody can aim: it takes as long for a key that is nearly right as for
any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import Final, TypeAlias

_BEARER: Final = "bearer "
_STAR: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one key allows. None: without a limit. Times are in seconds since 1970."""

    name: str
    admin: bool = False
    #: Ids or aliases, each with one `*` at most.
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    expires_at: float | None = None
    revoked: bool = False
    #: Who asks, as far as fairness goes: whoever has the key, from wherever.
    principal: str = field(init=False)
    _exactly: frozenset[str] = field(init=False, repr=False)
    _around_star: tuple[tuple[str, str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        principal = blake2b(f"key\0{self.name}".encode(), digest_size=8).hexdigest()
        object.__setattr__(self, "principal", principal)
        models = self.models or ()
        exactly = frozenset(model for model in models if _STAR not in model)
        object.__setattr__(self, "_exactly", exactly)
        stars = (model.partition(_STAR) for model in models if _STAR in model)
        object.__setattr__(self, "_around_star", tuple((head, tail) for head, _, tail in stars))

    def covers(self, *names: str) -> bool:
        """Tell whether a model that is called by these names may be asked for."""
        if self.models is None or not self._exactly.isdisjoint(names):
            return True
        for head, tail in self._around_star:
            for name in names:
                fits = len(name) >= len(head) + len(tail)
                if fits and name.startswith(head) and name.endswith(tail):
                    return True
        return False


#: What every known key allows, by its digest.
Keyring: TypeAlias = Mapping[bytes, Grant]


class Denial(Enum):
    """Why nobody is let in; the value is what metrics and logs call it."""

    MISSING = "missing_key"
    UNKNOWN = "unknown_key"
    EXPIRED = "expired_key"
    REVOKED = "revoked_key"


@dataclass(frozen=True, slots=True)
class Denied:
    """A request that is not let in; `name` is the key's, where it is known."""

    denial: Denial
    name: str | None = None


def digest_of(secret: str) -> bytes:
    """Return what a key is known by."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def told_key(headers: Mapping[str, str]) -> str | None:
    """Return the key of a request: OpenAI's bearer token, else Anthropic's `x-api-key`."""
    said = headers.get("authorization")
    if said is not None and said[:7].lower() == _BEARER:
        return said[7:].strip()
    return headers.get("x-api-key")


def identify(keyring: Keyring, headers: Mapping[str, str], now: float) -> Grant | Denied:
    """Return what whoever sent these headers at `now` (seconds since 1970) may do."""
    secret = told_key(headers)
    if not secret:
        return Denied(Denial.MISSING)
    grant = keyring.get(digest_of(secret))
    if grant is None:
        return Denied(Denial.UNKNOWN)
    if grant.revoked:
        return Denied(Denial.REVOKED, grant.name)
    if grant.expires_at is not None and now >= grant.expires_at:
        return Denied(Denial.EXPIRED, grant.name)
    return grant


def is_one_of(digests: tuple[bytes, ...], headers: Mapping[str, str]) -> bool:
    """Tell whether the request carries the token of one of these digests; each is compared."""
    told = digest_of(told_key(headers) or "")
    return sum(compare_digest(told, digest) for digest in digests) > 0
