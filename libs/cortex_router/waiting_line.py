"""Who waits, and whose turn it is: principals by turns, and within one whoever came first.

A request may need more room than there is. Then others' that need less pass it, but only
`MOST_PASSES` times: nobody waits for ever, and little room stays empty.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: So often others may be seated before one whose turn it is and who needs more pages.
MOST_PASSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One request. `since` is when it came, `deadline` until when it may wait (Unix seconds).

    `pages` are what it needs of a memory that a model's requests share.
    """

    id: str
    model: str
    principal: str
    since: float
    deadline: float | None = None
    pages: int = 0


class WaitingLine:
    """Those who wait: a queue for each principal, the principals in the order of their turns."""

    def __init__(self) -> None:
        self.count = 0
        self._queues: OrderedDict[str, OrderedDict[str, Ticket]] = OrderedDict()
        self._passed: dict[str, int] = {}

    def append(self, ticket: Ticket) -> None:
        """Put a request behind its principal's others."""
        self._queues.setdefault(ticket.principal, OrderedDict())[ticket.id] = ticket
        self.count += 1

    def take_over(self, other: "WaitingLine") -> None:
        """Put everybody of `other` behind those who are here."""
        for ticket in other.empty():
            self.append(ticket)

    def empty(self) -> list[Ticket]:
        """Take out everybody."""
        everybody = [ticket for queue in self._queues.values() for ticket in queue.values()]
        self._queues.clear()
        self._passed.clear()
        self.count = 0
        return everybody

    def pop(
        self, is_content: Callable[[str], bool], fits: Callable[[Ticket], bool]
    ) -> Ticket | None:
        """Take out whoever's turn it is; its principal's next turn comes last.

        None: nobody fits, or those who do have passed somebody else often enough.
        """
        passed: list[str] = []
        for principal in self._turns(is_content):
            queue = self._queues[principal]
            first = next(iter(queue.values()))
            if fits(first):
                break
            if self._passed.get(first.id, 0) >= MOST_PASSES:
                return None
            passed.append(first.id)
        else:
            return None
        for name in passed:
            self._passed[name] = self._passed.get(name, 0) + 1
        self._passed.pop(first.id, None)
        del queue[first.id]
        self.count -= 1
        if queue:
            self._queues.move_to_end(principal)
        else:
            del self._queues[principal]
        return first

    def _turns(self, is_content: Callable[[str], bool]) -> Iterator[str]:
        """Yield principals in the order of their turns, those who have enough in flight last."""
        yield from (name for name in self._queues if not is_content(name))
        yield from (name for name in self._queues if is_content(name))

    def discard(self, ticket: Ticket) -> bool:
        """Take out a request wherever it waits; False when it does not."""
        queue = self._queues.get(ticket.principal)
        if queue is None or queue.pop(ticket.id, None) is None:
            return False
        self.count -= 1
        self._passed.pop(ticket.id, None)
        if not queue:
            del self._queues[ticket.principal]
        return True

    def position(self, last: Ticket) -> int:
        """Return when the last one of its principal has its turn, 1 for next, limits aside."""
        rounds = len(self._queues[last.principal])
        ahead, passed = 0, False
        for principal, queue in self._queues.items():
            passed = passed or principal == last.principal
            ahead += min(len(queue), rounds - 1 if passed else rounds)
        return ahead + 1

    def oldest_since(self) -> float:
        """Return since when the oldest waits: each principal's first is its oldest."""
        return min(next(iter(queue.values())).since for queue in self._queues.values())

    def sizes(self) -> Iterator[tuple[int, str]]:
        """Return how many each principal has waiting."""
        return ((len(queue), principal) for principal, queue in self._queues.items())

    def last_of(self, principal: str) -> Ticket | None:
        """Return a principal's last, None when it has nothing waiting."""
        queue = self._queues.get(principal)
        return None if queue is None else next(reversed(queue.values()))
