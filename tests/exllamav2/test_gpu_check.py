"""The checks of `make gpu-check` as far as they go without a GPU: a card that is a file, CPU torch.

What needs memory that moves, or kernels that are not there, has to fail here and never pass.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cortex_neuron.nvml import Nvml, find_gpus
from tests.exllamav2.tiny_models import write_scripted
from tests.fake_nvml.gpus import RTX_3090, Gpus, compiled, in_this_process
from tests.gpu import answering, remembering
from tests.gpu.stage import PROMPT, Stage, stage
from tests.gpu.throughput import throughput
from tests.gpu.verdicts import Check, Outcome, Verdict, judge


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nvml]:
    """A machine whose only card is a file."""
    library = compiled(tmp_path_factory.mktemp("nvml"))
    gpus = Gpus(tmp_path_factory.mktemp("gpus") / "state", library)
    gpus.plug(0, RTX_3090)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gpus.environment.items():
            patch.setenv(name, value)
        with in_this_process(gpus, patch):
            nvml = find_gpus().nvml
            assert nvml is not None
            yield nvml


@pytest.fixture(scope="module")
def scene(card: Nvml, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A fleet there, of a model that knows the answer."""
    folder = tmp_path_factory.mktemp("models") / "m"
    write_scripted(folder, [" Paris", ",", " of", " course", "."], begin=PROMPT)
    with stage(folder, card, tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture(scope="module")
def talkative(
    card: Nvml, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A fleet there, of a model that never has nothing to say."""
    with stage(random_model, card, tmp_path_factory.mktemp("logs")) as made:
        yield made


def verdict(scene: Stage, check: Check[Stage]) -> Verdict:
    """Return what one check comes to."""
    (found,) = judge(scene, [check], time.monotonic)
    return found


def test_a_check_is_not_applicable_where_there_is_nothing_to_ask(scene: Stage) -> None:
    """Weights that are not quantised, one device only: with the reason."""
    kernels = verdict(scene, Check("kernels", answering.kernels))
    split = verdict(scene, Check("split", answering.tensor_parallel))

    assert (kernels.outcome, split.outcome) == (Outcome.NOT_APPLICABLE,) * 2
    assert "not quantised" in kernels.facts
    assert "one device" in split.facts


def test_eight_streams_run_through_a_whole_fleet(talkative: Stage) -> None:
    """Real daemons, a real engine, and every answer whole."""
    found = verdict(talkative, Check("parallel", answering.parallel_streams))

    assert found.outcome is Outcome.PASSED, found.facts


def test_an_engine_that_is_killed_is_seen_to_come_back(talkative: Stage) -> None:
    """The stream ends in an error, and another engine gives the answer."""
    found = verdict(talkative, Check("killed", answering.killed))

    assert found.outcome is Outcome.PASSED, found.facts


def test_a_cache_without_kernels_fails_by_its_name(scene: Stage) -> None:
    """16 bits answer here; the first quantised mode has nothing that could do it."""
    found = verdict(scene, Check("modes", answering.cache_modes))

    assert found.outcome is Outcome.FAILED
    assert found.facts.startswith("Q8: ")


def test_memory_that_never_moved_is_no_pass(scene: Stage) -> None:
    """A card that says the same all along has not shown that anything came back."""
    found = verdict(scene, Check("unload", remembering.unload))

    assert found.outcome is Outcome.FAILED
    assert "no memory taken" in found.facts


def test_both_sides_of_the_throughput_are_measured(talkative: Stage) -> None:
    """Whatever they come to on two cores: exllamav2 alone answers, and so does the fleet."""
    found = verdict(talkative, Check("throughput", partial(throughput, rounds=1, tokens=128)))

    assert found.outcome in {Outcome.PASSED, Outcome.FAILED}
    assert "of exllamav2 alone" in found.facts, found.facts
