"""What is known about a coding agent: where its package has its program, and how it is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A coding agent from npm.

    `program` is a pattern below `node_modules`; `arguments` and `environment` take the gateway's
    address (and the prompt); `final_text` reads the agent's last words from what it printed.
    """

    name: str
    package: str
    program: str
    arguments: Callable[[str, str], list[str]]
    environment: Callable[[str], Mapping[str, str]]
    final_text: Callable[[str], str | None]

    def executable(self, packages: Path) -> Path:
        """Return the installed program. Raises FileNotFoundError."""
        found = sorted((packages / "node_modules").glob(self.program))
        if not found:
            raise FileNotFoundError(f"{self.package} has no {self.program} for this machine")
        return found[0]
