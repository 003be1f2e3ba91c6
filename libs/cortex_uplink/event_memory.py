"""The last events of a daemon's log, for those who ask for them over HTTP."""

from collections import deque
from collections.abc import Iterator

KEEP_EVENTS = 2000


class EventMemory:
    """The last lines of a log, as JSON, numbered from 1 on."""

    def __init__(self, most: int = KEEP_EVENTS) -> None:
        self._lines: deque[str] = deque(maxlen=most)
        #: The number of the last one.
        self.last = 0

    def keep(self, line: str) -> None:
        """Take in a line."""
        self._lines.append(line)
        self.last += 1

    @property
    def first(self) -> int:
        """The number of the oldest that is kept; one more than `last` when none is."""
        return self.last - len(self._lines) + 1

    def after(self, number: int) -> Iterator[str]:
        """Yield every line that is kept and came after the one of this number."""
        skipped = number - self.first + 1
        for index in range(max(0, skipped), len(self._lines)):
            yield self._lines[index]
