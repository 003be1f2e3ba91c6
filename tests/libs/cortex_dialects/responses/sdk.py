"""The official SDK's own idea of what an event and an answer look like."""

from functools import cache
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel


@cache
def _models() -> dict[str, type[BaseModel]]:
    """The union's members by the one value of their `type`: as strict as the union, and fast."""
    union = get_args(ResponseStreamEvent)[0]
    return {
        kind: member
        for member in get_args(union)
        for kind in get_args(member.model_fields["type"].annotation)
    }


def check_event(event: dict[str, Any]) -> None:
    """Raise ValidationError where an event lacks or mistypes something."""
    _models()[event["type"]].model_validate(event)


def check_answer(answer: dict[str, Any]) -> None:
    """Raise ValidationError where an answer lacks or mistypes something."""
    Response.model_validate(answer)
