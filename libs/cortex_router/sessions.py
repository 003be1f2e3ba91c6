"""Where each conversation was last served: a bounded memory of two generations.

A conversation lives in the young generation while it is used. When the young one is full or old in
time it becomes the old one, and what was in that is forgotten: O(1), with no list to keep sorted.
"""

from typing import NamedTuple, TypeAlias

from cortex_router.persistent import PersistentMap

GENERATION_SIZE = 8192
GENERATION_SECS = 900.0


class Home(NamedTuple):
    """The node that holds a conversation's cache, and how much of it, in tokens."""

    node: str
    tokens: int


class Count(NamedTuple):
    """How many conversations of a model call a node home, by generation."""

    generation: int = 0
    young: int = 0
    old: int = 0

    def at(self, generation: int) -> "Count":
        """Return the count as it is in `generation`: one step makes young old, two forget."""
        if generation == self.generation:
            return self
        old = self.young if generation == self.generation + 1 else 0
        return Count(generation, 0, old)

    @property
    def total(self) -> int:
        """Conversations of both generations."""
        return self.young + self.old


_Homes: TypeAlias = PersistentMap[tuple[str, str], Home]


class Sessions(NamedTuple):
    """The homes of conversations, by model and session."""

    generation: int = 0
    began_at: float | None = None
    young: _Homes = PersistentMap()
    old: _Homes = PersistentMap()

    def home(self, model: str, session: str) -> Home | None:
        """Return where the conversation was last served."""
        key = (model, session)
        found = self.young.get(key)
        return found if found is not None else self.old.get(key)

    def at(self, now: float) -> "Sessions":
        """Return the memory as it is now, a generation older when it is time."""
        if self.began_at is None:
            return self._replace(began_at=now)
        if len(self.young) < GENERATION_SIZE and now - self.began_at < GENERATION_SECS:
            return self
        return Sessions(self.generation + 1, now, PersistentMap(), self.young)

    def moved_to(self, model: str, session: str, home: Home) -> "Sessions":
        """Return the memory with a conversation at its (new) home."""
        young = self.young.set((model, session), home)
        return Sessions(self.generation, self.began_at, young, self.old)
