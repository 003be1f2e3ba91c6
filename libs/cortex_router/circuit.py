"""The circuit breaker of one replica: a pure state machine.

Only failures of the replica count, never what a client did wrong. After `THRESHOLD` in a row the
circuit opens; when its pause is over one trial request may pass; the trial closes it again or opens
it for twice as long.
"""

from dataclasses import dataclass, replace

THRESHOLD = 3
FIRST_PAUSE_SECS = 5.0
LONGEST_PAUSE_SECS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """How a replica has been doing. `open_until` is set while it is not to be asked."""

    failures: int = 0
    pause_secs: float = 0.0
    open_until: float | None = None
    trial: bool = False

    def lets_through(self, now: float) -> bool:
        """Tell whether a request may be sent: closed, or time for the one trial."""
        return self.open_until is None or (self._is_over(now) and not self.trial)

    def sent(self, now: float) -> "Circuit":
        """Return the circuit after a request was sent."""
        if self._is_over(now):
            return replace(self, trial=True)
        return self

    def succeeded(self) -> "Circuit":
        """Return the circuit after an answer."""
        return CLOSED

    def abandoned(self) -> "Circuit":
        """Return the circuit after a request that says nothing about the replica."""
        return replace(self, trial=False) if self.trial else self

    def failed(self, now: float) -> "Circuit":
        """Return the circuit after a failure of the replica."""
        failures = self.failures + 1
        if failures < THRESHOLD:
            return Circuit(failures=failures)
        if self.open_until is not None and not self._is_over(now):
            return replace(self, failures=failures)  # sent before it opened: known already
        pause = min(LONGEST_PAUSE_SECS, self.pause_secs * 2 or FIRST_PAUSE_SECS)
        return Circuit(failures=failures, pause_secs=pause, open_until=now + pause)

    def _is_over(self, now: float) -> bool:
        """Tell whether the pause is: no pause is as long as a clock set back makes it look."""
        until = self.open_until
        return until is not None and (now >= until or until - now > LONGEST_PAUSE_SECS)


CLOSED = Circuit()
