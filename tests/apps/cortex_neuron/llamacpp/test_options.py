"""Options of a GGUF model over the node's settings."""

import pytest

from cortex_core.errors import InvalidRequest
from cortex_core.settings import LlamaCppSettings
from cortex_neuron.llamacpp.options import LlamaCppOptions, merge_options

SETTINGS = LlamaCppSettings(context=4096, parallel=2)


def test_settings_are_the_default_and_options_win() -> None:
    """What a model says beats what the node says."""
    merged = merge_options(SETTINGS, {"parallel": 8, "cache_type_k": "q8_0"}, None)

    assert (merged.context, merged.parallel, merged.cache_type_k) == (4096, 8, "q8_0")


def test_no_more_context_than_the_model_was_made_for() -> None:
    """A smaller model lowers the context; an unknown length does not."""
    assert merge_options(SETTINGS, {}, 2048).context == 2048
    assert merge_options(SETTINGS, {}, 99999).context == 4096
    assert merge_options(SETTINGS, {}, None).context == 4096


def test_a_context_of_ones_own_costs_its_cells() -> None:
    """Shared, all requests live in one context; else each has one."""
    shared = merge_options(SETTINGS, {"shared_context": True}, None)

    assert shared.cells == 4096
    assert merge_options(SETTINGS, {}, None).cells == 2 * 4096


def test_an_unknown_option_lists_the_valid_ones() -> None:
    """With the nearest, because it is a typo most of the time."""
    with pytest.raises(InvalidRequest, match="did you mean 'parallel'") as caught:
        merge_options(SETTINGS, {"paralel": 2}, None)

    assert caught.value.code == "unsupported_parameter"
    assert caught.value.param == "options.paralel"
    assert all(name in caught.value.message for name in LlamaCppOptions.model_fields)


@pytest.mark.parametrize("options", [{"context": 1}, {"cache_type_k": "f8"}, {"threads": "many"}])
def test_an_option_out_of_bounds_is_named(options: dict[str, object]) -> None:
    """The client learns which one, and why."""
    with pytest.raises(InvalidRequest) as caught:
        merge_options(SETTINGS, options, None)

    assert caught.value.param == f"options.{next(iter(options))}"
