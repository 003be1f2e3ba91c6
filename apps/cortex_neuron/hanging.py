"""When an engine that says nothing is hung, and when it only works hard.

An engine answers its health from a thread that does not compute, so a prefill of any length does
not silence it: only a process that as a whole does nothing is silent. Even then it is given time:

1. only while requests are under way, and only after `MISSES` looks in a row without an answer;
2. one that meanwhile used no processor time, as a frozen or deadlocked one does not, is hung after
   `limit_secs`;
3. one that did use some may be starved, or hold a lock while it computes: it gets `PATIENCE` times
   as long;
4. one that answers that it is not well knows itself that nothing comes of its work any more, and is
   taken at its word after `MISSES` looks.
"""

from dataclasses import dataclass
from enum import Enum

MISSES = 3
PATIENCE = 10
#: Less than this part of one processor, and a process does nothing.
STILL = 0.02


class Answer(Enum):
    """What an engine says when it is asked for its health."""

    WELL = "well"
    UNWELL = "unwell"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of an engine at one moment; `at` in seconds of a clock that only goes on."""

    at: float
    busy: bool
    answer: Answer
    processor_secs: float | None = None


class Suspicion:
    """What a row of looks amounts to."""

    def __init__(self, limit_secs: float) -> None:
        self._limit_secs = limit_secs
        self._before: Look | None = None
        self._silent_since: float | None = None
        self._still_since = 0.0
        self._misses = 0
        self._confessions = 0

    def see(self, look: Look) -> str | None:
        """Take in one look; return why the engine counts as hung, None when it does not."""
        before, self._before = self._before, look
        self._confessions = self._confessions + 1 if look.answer is Answer.UNWELL else 0
        if look.answer is not Answer.NONE or not look.busy:
            self._silent_since, self._misses = None, 0
            confessed = look.busy and self._confessions >= MISSES
            return "it says that nothing comes of its work any more" if confessed else None
        self._misses += 1
        if self._silent_since is None or before is None:
            self._silent_since = self._still_since = look.at
            return None
        if _worked(before, look):
            self._still_since = look.at
        silent = look.at - self._silent_since
        still = look.at - self._still_since
        if self._misses < MISSES:
            return None
        if still >= self._limit_secs:
            return f"it has not answered for {silent:.1f} s and does nothing"
        if silent >= PATIENCE * self._limit_secs:
            return f"it has not answered for {silent:.1f} s, busy as it is"
        return None


def _worked(before: Look, now: Look) -> bool:
    if before.processor_secs is None or now.processor_secs is None:
        return False
    return now.processor_secs - before.processor_secs > STILL * (now.at - before.at)
