"""Codex, unattended, with the gateway as its provider of Responses."""

import json
from collections.abc import Mapping

from tests.agents.agent import Agent
from tests.agents.scripted_node import MODEL


def _arguments(gateway: str, prompt: str) -> list[str]:
    provider = (
        f'{{name="cortex",base_url="{gateway}/v1",env_key="CORTEX_KEY",wire_api="responses"}}'
    )
    settings = {
        "model_provider": '"cortex"',
        "model_providers.cortex": provider,
        # Without a network it would wait five seconds for its statistics to be taken.
        "analytics.enabled": "false",
    }
    chosen = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    return [
        *("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        *("-m", MODEL, *chosen, prompt),
    ]


def _environment(_: str) -> Mapping[str, str]:
    return {"CORTEX_KEY": "not-a-secret"}


def _final_text(printed: str) -> str | None:
    said: str | None = None
    for line in printed.splitlines():
        match json.loads(line) if line.startswith("{") else None:
            case {"type": "item.completed", "item": {"type": "agent_message", "text": str(text)}}:
                said = text
            case _:
                pass
    return said


CODEX = Agent(
    name="codex",
    package="@openai/codex",
    program="@openai/codex-*/vendor/*/bin/codex",
    arguments=_arguments,
    environment=_environment,
    final_text=_final_text,
)
