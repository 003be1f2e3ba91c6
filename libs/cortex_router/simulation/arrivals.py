"""What arrives, and when: single requests, and conversations whose turns follow the answers."""

from typing import NamedTuple


class Turn(NamedTuple):
    """The next request of a conversation: so long after the answer to the one before."""

    after_secs: float
    prompt_tokens: int
    completion_tokens: int


class Arrival(NamedTuple):
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
            answered_at + turn.after_secs,
            self.model,
            turn.prompt_tokens,
            turn.completion_tokens,
            self.session,
            self.shared_tokens,
            self.then[1:],
        )
