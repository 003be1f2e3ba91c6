"""Who is let in: keys are looked up, limits are kept, and all of it is counted.

What a key allows is decided in `cortex_core`; here are the clock, the errors and the counters. The
use of keys is this process's own. Whoever shares it among processes gives `Door` another way to an
`Allowance` by its key's name.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cortex_core.access import Denial, Denied, Grant, Keyring, identify
from cortex_core.allowance import Allowance, Over
from cortex_core.errors import InvalidApiKey, NotPermitted, RateLimited
from cortex_core.keys import load_keys
from cortex_core.settings import CortexSettings
from cortex_dialects import Usage

_NOBODY: Final = "unknown"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_SENTENCES: Final = {
    Denial.MISSING: "no API key was sent: send one as 'Authorization: Bearer …' or as 'x-api-key'",
    Denial.UNKNOWN: "the API key is not valid here",
    Denial.EXPIRED: "the API key has expired",
    Denial.REVOKED: "the API key has been revoked",
}
_LIMITS: Final = {
    "requests_per_minute": "{} requests a minute",
    "tokens_per_minute": "{} tokens a minute",
    "max_in_flight": "{} requests at a time",
}
#: OpenAI's words for a limit, what is left of it, and when all of it is back.
_HEADERS: Final = {
    limit: tuple(f"x-ratelimit-{what}-{limit}" for what in ("limit", "remaining", "reset"))
    for limit in ("requests", "tokens")
}


def keyring_of(settings: CortexSettings) -> Keyring | None:
    """Return the keys that let their holders in; None lets everybody. Raises ConfigError."""
    file = settings.access.keys_file
    return None if file is None else load_keys(file).keyring()


class KeyDenied(Exception):
    """Which key it was, for the operator only."""


@dataclass(slots=True)
class _Use:
    """What one key did."""

    allowance: Allowance = field(default_factory=Allowance)
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class Visit:
    """One request that was let in, until `Door.leave`. `headers` tell its client what is left."""

    grant: Grant
    headers: Mapping[str, str]
    use: _Use
    promised: int


class Door(Collector):
    """The keys of this gateway and what was done with them."""

    def __init__(self) -> None:
        self._keyring: Keyring = {}
        self._uses: dict[str, _Use] = {}
        self._refusals: dict[tuple[str, str], int] = {}

    def know(self, keyring: Keyring) -> None:
        """Know these keys from now on. What was used under a name that stays still counts."""
        self._keyring = keyring
        names = {grant.name for grant in keyring.values()}
        self._uses = {name: use for name, use in self._uses.items() if name in names}
        kept = names | {_NOBODY}
        self._refusals = {key: many for key, many in self._refusals.items() if key[0] in kept}

    def identify(self, headers: Mapping[str, str]) -> Grant:
        """Return what whoever sent these headers may do. Raises InvalidApiKey."""
        found = identify(self._keyring, headers, time.time())
        if not isinstance(found, Denied):
            return found
        self._refused(found.name, found.denial.value)
        error = InvalidApiKey(_SENTENCES[found.denial])
        if found.name is not None:
            raise error from KeyDenied(found.name)
        raise error

    def require_admin(self, grant: Grant) -> None:
        """Let an operator pass. Raises NotPermitted for anybody else."""
        if not grant.admin:
            self._refused(grant.name, "not_admin")
            raise NotPermitted("this needs an admin's API key", code="admin_key_required")

    def require_model(self, grant: Grant, asked_for: str, model: str) -> None:
        """Let a request for a model pass that goes by both names. Raises NotPermitted."""
        if not grant.covers(asked_for, model):
            self._refused(grant.name, "model_not_allowed")
            raise NotPermitted(
                "the API key does not cover this model", code="model_not_allowed", param="model"
            )

    def enter(self, grant: Grant, tokens: int) -> Visit:
        """Let a request in whose prompt has about so many tokens; `leave` must follow.

        Raises RateLimited.
        """
        name = grant.name
        if (use := self._uses.get(name)) is None:
            use = self._uses[name] = _Use()
        now = time.monotonic()
        promised = use.allowance.enter(grant, tokens, now)
        if isinstance(promised, Over):
            self._refused(name, promised.limit)
            raise _beyond(promised, _told(use.allowance, grant, now))
        use.requests += 1
        limited = grant.requests_per_minute is not None or grant.tokens_per_minute is not None
        left = _told(use.allowance, grant, now) if limited else _NOTHING
        return Visit(grant, left, use, promised)

    def leave(self, visit: Visit, usage: Usage | None, came: int | None) -> None:
        """Let a request out that used so much.

        Where nobody said, it is the prompt's rough size and the about so many tokens that `came` of
        an answer; None where none was begun.
        """
        use, tokens = visit.use, 0
        if usage is not None:
            use.prompt_tokens += usage.prompt
            use.completion_tokens += usage.completion
            tokens = usage.prompt + usage.completion
        elif came is not None:
            tokens = visit.promised + came
        use.allowance.leave(visit.grant, visit.promised, tokens, time.monotonic())

    def collect(self) -> Iterator[Metric]:
        """Return everything as Prometheus has it."""
        uses = sorted(self._uses.items())
        requests = CounterMetricFamily(
            "cortex_key_requests", "Requests that were let in.", labels=("key",)
        )
        tokens = CounterMetricFamily("cortex_key_tokens", "Tokens used.", labels=("key", "kind"))
        in_flight = GaugeMetricFamily(
            "cortex_key_in_flight", "Requests under way.", labels=("key",)
        )
        for name, use in uses:
            requests.add_metric((name,), use.requests)
            tokens.add_metric((name, "prompt"), use.prompt_tokens)
            tokens.add_metric((name, "completion"), use.completion_tokens)
            in_flight.add_metric((name,), use.allowance.in_flight)
        refusals = CounterMetricFamily(
            "cortex_access_refusals",
            "Requests that were not let in, by the key where it is known, and why.",
            labels=("key", "reason"),
        )
        for labels, many in sorted(self._refusals.items()):
            refusals.add_metric(labels, many)
        yield from (requests, tokens, in_flight, refusals)

    def _refused(self, name: str | None, reason: str) -> None:
        key = (name or _NOBODY, reason)
        self._refusals[key] = self._refusals.get(key, 0) + 1


def _beyond(over: Over, left: Mapping[str, str]) -> RateLimited:
    # Rounded up: at the moment that is told it must be true.
    wait = math.ceil(over.retry_after_secs)
    limit = _LIMITS[over.limit].format(over.most)
    error = RateLimited(
        f"the API key's limit of {limit} is reached; try again in {wait} s",
        retry_after_secs=wait,
        extra={"limit": over.limit, "max": over.most},
    )
    error.left = left
    return error


def _told(allowance: Allowance, grant: Grant, now: float) -> dict[str, str]:
    told: dict[str, str] = {}
    for one in allowance.left(grant, now):
        limit, remaining, reset = _HEADERS[one.limit]
        told[limit] = str(one.most)
        told[remaining] = str(one.remaining)
        told[reset] = f"{math.ceil(one.reset_secs)}s"
    return told
