"""What a model's options may say, and the plan that they make."""

from pathlib import Path
from typing import Any

import pytest

from cortex_core.errors import InvalidRequest
from cortex_core.settings import ExllamaSettings
from cortex_neuron.exllama.options import ExllamaOptions, merge_options
from cortex_neuron.exllama.plan import Draft, Lora, Plan, whole_pages

SETTINGS = ExllamaSettings(context=4096, cache_mode="Q8", parallel=4)


def merged(devices: int = 1, **options: Any) -> ExllamaOptions:
    """Return options over the settings."""
    return merge_options("exllamav2", SETTINGS, options, devices)


def test_options_go_over_settings() -> None:
    """What a model does not say, the node does."""
    found = merged(cache_mode="Q4", guesses=2)

    assert (found.context, found.cache_mode, found.parallel) == (4096, "Q4", 4)
    assert found.guesses == 2


@pytest.mark.parametrize(
    ("options", "devices", "param"),
    [
        ({"cache_size": 5}, 1, "options.cache_size"),
        ({"cache_mode": "FP8"}, 1, "options.cache_mode"),
        ({"chunk": 300}, 1, "options.chunk"),
        ({"guesses": 8}, 1, "options.guesses"),
        ({"split_mb": [1, 2]}, 1, "options.split_mb"),
        ({"reserve_mb": [1]}, 2, "options.reserve_mb"),
        ({"tensor_parallel": True}, 1, "options.tensor_parallel"),
        ({"loras": [{"file": "x"}]}, 1, "options.loras.0.path"),
        ({"context": 10}, 1, "options.context"),
    ],
)
def test_what_cannot_be_chosen_is_named(options: dict[str, Any], devices: int, param: str) -> None:
    """An option that is passed over would be a lie."""
    with pytest.raises(InvalidRequest) as caught:
        merged(devices, **options)

    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


def test_the_nearest_option_is_offered() -> None:
    """A slip of the hand."""
    with pytest.raises(InvalidRequest, match="did you mean 'cache_mode'"):
        merged(cache_mod="Q4")


def test_a_plan_has_everything() -> None:
    """And comes through JSON as it was: that is how an engine hears of it."""
    options = merged(
        2,
        split_mb=[1000, 2000],
        reserve_mb=[100, 0],
        rope_scale=2.0,
        rope_alpha=1.5,
        draft_model="/m/small",
        draft_cache_mode="Q6",
        loras=[{"path": "/l", "scale": 0.5}],
    )
    plan = options.plan(Path("/m/large"), 4096, 8192)

    assert plan == Plan(
        path="/m/large",
        context=4096,
        cache=8192,
        cache_mode="Q8",
        chunk=2048,
        slots=4,
        split_mb=(1000, 2000),
        reserve_mb=(100, 0),
        rope_scale=2.0,
        rope_alpha=1.5,
        draft=Draft(path="/m/small", cache_mode="Q6"),
        guesses=4,
        loras=(Lora(path="/l", scale=0.5),),
    )
    assert Plan.from_json(plan.as_json()) == plan


@pytest.mark.parametrize(("context", "chunk"), [(256, 256), (300, 256), (700, 512), (9000, 2048)])
def test_a_chunk_is_no_longer_than_what_there_is(context: int, chunk: int) -> None:
    """The library reads past the end of a shorter cache."""
    assert merged().plan(Path("/m"), context, whole_pages(context)).chunk == chunk


@pytest.mark.parametrize(
    ("options", "own", "context", "cache"),
    [
        ({"context": None}, 2048, 2048, 2048),
        ({}, 2048, 2048, 2048),
        ({}, 8192, 4096, 4096),
        ({"cache_tokens": 10000}, 8192, 4096, 10240),
        ({"guesses": 4}, 8192, 4096, 4352),
        ({"context": 4096, "rope_scale": 2.0}, 2048, 4096, 4096),
    ],
)
def test_lengths_are_wanted(options: dict[str, Any], own: int, context: int, cache: int) -> None:
    """No longer than the model was made for unless it is stretched; room for guesses besides."""
    assert merged(**options).wanted(own) == (context, cache)
