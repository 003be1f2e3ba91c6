"""What arrives, and when: single requests, and conversations whose turns follow the answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """The next request of a conversation: so long after the answer to the one before."""

    after_secs: float
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request. `shared_tokens` of its prompt are what every conversation of its kind begins with.

    `then` are the turns that follow it, if it is answered.
    """

    at: float
    model: str
    prompt_tokens: int
    completion_tokens: int
    session: str | None = None
    shared_tokens: int = 0
    then: tuple[Turn, ...] = ()

    def follow_up(self, answered_at: float) -> "Arrival | None":
        """Return the next turn of the conversation, None when this was the last."""
        if not self.then:
            return None
        turn = self.then[0]
        return Arrival(
            at=answered_at + turn.after_secs,
            model=self.model,
            prompt_tokens=turn.prompt_tokens,
            completion_tokens=turn.completion_tokens,
            session=self.session,
            shared_tokens=self.shared_tokens,
            then=self.then[1:],
        )
