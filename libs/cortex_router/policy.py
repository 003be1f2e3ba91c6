"""The operator's choices, as one value."""

from dataclasses import dataclass, field

from cortex_router.choosing import Serving
from cortex_router.placement import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to choose where there is a choice: among replicas, and of whom to displace."""

    rules: Rules = field(default_factory=Rules)
    serving: Serving = field(default_factory=Serving)
