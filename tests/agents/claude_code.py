"""Claude Code, unattended, with the gateway as its Anthropic."""

import json
from collections.abc import Mapping

from tests.agents.agent import Agent
from tests.agents.scripted_node import MODEL


def _arguments(_: str, prompt: str) -> list[str]:
    return ["-p", prompt, "--output-format", "json", "--dangerously-skip-permissions"]


def _environment(gateway: str) -> Mapping[str, str]:
    return {
        "ANTHROPIC_BASE_URL": gateway,
        "ANTHROPIC_AUTH_TOKEN": "not-a-secret",
        "ANTHROPIC_MODEL": MODEL,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": MODEL,
        "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "IS_SANDBOX": "1",
    }


def _final_text(printed: str) -> str | None:
    try:
        result = json.loads(printed)["result"]
    except (ValueError, KeyError):
        return None
    return result if isinstance(result, str) else None


CLAUDE_CODE = Agent(
    name="claude-code",
    package="@anthropic-ai/claude-code",
    program="@anthropic-ai/claude-code-*/claude",
    arguments=_arguments,
    environment=_environment,
    final_text=_final_text,
)
