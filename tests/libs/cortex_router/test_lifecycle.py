"""The life of a model: told by hand, drawn in the README, and nothing beside the table."""

from pathlib import Path

import pytest

from cortex_router import TRANSITIONS, IllegalTransition, Life, Status, diagram, step

README = Path(__file__).parents[3] / "README.md"


def test_a_model_lives_and_leaves() -> None:
    """Asked for, crowded out, placed, up, crashed, up again, gone."""
    status, seen = Status.UNLOADED, list[Status]()
    for event in (
        Life.ASKED,
        Life.PLACED,
        Life.CROWDED,
        Life.PLACED,
        Life.UP,
        Life.CRASHED,
        Life.UP,
        Life.LEAVE,
        Life.GONE,
    ):
        seen.append(status := step(status, event))

    assert seen == [
        Status.QUEUED,
        Status.LOADING,
        Status.QUEUED,
        Status.LOADING,
        Status.LOADED,
        Status.RECOVERING,
        Status.LOADED,
        Status.UNLOADING,
        Status.UNLOADED,
    ]


def test_what_cannot_happen_is_an_error_that_says_so() -> None:
    """A model that is gone cannot come up."""
    with pytest.raises(IllegalTransition, match="up while unloaded"):
        step(Status.UNLOADED, Life.UP)


def test_every_status_but_the_unknown_one_has_a_way_out() -> None:
    """No model is stuck by the table."""
    assert {status for status in Status if not TRANSITIONS[status]} == {Status.UNKNOWN}


def test_the_readme_shows_the_table() -> None:
    """A diagram that could lie is compared."""
    assert f"```mermaid\n{diagram()}\n```" in README.read_text(encoding="utf-8")
