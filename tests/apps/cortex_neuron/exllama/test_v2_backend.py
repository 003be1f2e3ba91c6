"""What exllamav2's adapter does with jobs, run against the fakes.

The real library answers for the rest (`make exllamav2-check`).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_core.errors import InternalError, InvalidRequest
from cortex_neuron.exllama.jobs import Broke, Ended, EndReason, Generated, Prefilled, Started
from cortex_neuron.exllama.plan import Draft, Lora
from cortex_neuron.exllama.sampling import Sampling
from tests.apps.cortex_neuron.exllama.adapters import Only, finish, job, on_fakes, tokens
from tests.apps.cortex_neuron.exllama.v2_models import HALF, backend, generator, lora, model


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fakes, where exllamav2 and torch would be."""
    with on_fakes(monkeypatch):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder."""
    return model(tmp_path, "model")


def test_a_job_is_told_from_its_beginning_to_its_end(folder: Path) -> None:
    """How far its prompt is, what of it was known, its tokens, and why it ended."""
    first, again = finish(backend(folder), job(5, 6, 7), job(5, 6, 7))

    assert first == [
        Prefilled(2, 2),
        Started(0),
        Generated((8,)),
        Generated((9,)),
        Generated((10,)),
        Generated((11,)),
        Ended(EndReason.MAX_TOKENS, 4),
    ]
    assert again[1] == Started(2)


def test_a_stop_token_is_counted_and_not_told(folder: Path) -> None:
    """Neither is it when the library gives it only with what it held back."""
    (events,) = finish(backend(folder), job(5, max_tokens=9, stop_tokens=frozenset({8})))

    assert tokens(events) == [6, 7]
    assert events[-1] == Ended(EndReason.STOP_TOKEN, 3)


def test_held_tokens_come_in_the_end(folder: Path) -> None:
    """Half a character that waits is told with the next token, or with the end."""
    made = backend(folder)
    going, cut, stopped = finish(
        made,
        job(HALF - 2, max_tokens=4),
        job(HALF - 2, max_tokens=2),
        job(HALF - 2, max_tokens=9, stop_tokens=frozenset({HALF + 1})),
    )

    assert Generated((HALF, HALF + 1)) in going
    assert tokens(cut) == [HALF - 1, HALF]
    assert tokens(stopped) == [HALF - 1, HALF]
    assert stopped[-1] == Ended(EndReason.STOP_TOKEN, 3)


@pytest.mark.parametrize("draft", [False, True])
def test_guessing_takes_nothing_from_an_answer(folder: Path, tmp_path: Path, draft: bool) -> None:
    """The library stops early where it guesses; the room for guesses is not promised away."""
    small = Draft(path=str(model(tmp_path, "small"))) if draft else None
    made = backend(folder, guesses=4, draft=small)
    (events,) = finish(made, job(max_tokens=10))

    assert len(tokens(events)) == 10
    assert made.limits.cache == 1024 - 4
    finish(made, job(max_tokens=made.limits.cache - 2))


def test_log_probabilities_are_of_the_logits(folder: Path) -> None:
    """Of every token, held ones included, with the likeliest beside it."""
    (events,) = finish(backend(folder), job(HALF - 2, max_tokens=3, top_logprobs=2))

    said = [odds for event in events if isinstance(event, Generated) for odds in event.logprobs]
    assert len(said) == 3
    for token, odds in zip(tokens(events), said, strict=True):
        assert odds.top[0] == (token, odds.logprob)
        assert len(odds.top) == 2
        assert -1.0 < odds.logprob < 0


def test_nothing_is_sampled_that_was_not_asked_for(folder: Path) -> None:
    """The library's own defaults (top_k 50, top_p 0.8, a repetition penalty) count for nobody."""
    made = backend(folder)
    made.submit(1, job(sampling=Sampling()))
    plain = generator().pending_jobs[0].gen_settings
    made.submit(2, job())
    greedy = generator().pending_jobs[1].gen_settings

    assert (plain.temperature, plain.top_k, plain.top_p) == (1.0, 0, 1.0)
    assert (greedy.top_k, greedy.top_p) == (1, 0.0)
    for settings in (plain, greedy):
        assert settings.token_repetition_penalty == 1.0
        assert settings.dry_multiplier == settings.xtc_probability == settings.min_p == 0
        assert settings.token_bias is None
    assert plain is not greedy


def test_sampling_arrives(folder: Path) -> None:
    """Every field under the library's name for it."""
    made = backend(folder)
    wanted = Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        typical_p=0.2,
        tfs=0.3,
        top_a=0.4,
        repetition_penalty=1.3,
        repetition_range=9,
        presence_penalty=0.6,
        frequency_penalty=0.7,
        dry_multiplier=0.8,
        dry_range=12,
        dry_sequence_breakers=("w3", "w11"),
        xtc_probability=0.1,
        mirostat=True,
        smoothing_factor=0.2,
        temperature_last=True,
        logit_bias={5: -3.0},
    )
    made.submit(1, job(sampling=wanted, seed=11))
    (queued,) = generator().pending_jobs
    settings = queued.gen_settings

    assert queued.seed == 11
    assert (settings.temperature, settings.top_p, settings.top_k) == (0.5, 0.9, 7)
    assert (settings.min_p, settings.typical, settings.tfs, settings.top_a) == (0.1, 0.2, 0.3, 0.4)
    assert (settings.token_repetition_penalty, settings.token_repetition_range) == (1.3, 9)
    assert (settings.token_presence_penalty, settings.token_frequency_penalty) == (0.6, 0.7)
    assert (settings.dry_multiplier, settings.dry_range, settings.dry_max_ngram) == (0.8, 12, 11)
    assert settings.dry_sequence_breakers == {3, 11, *range(30, 40)}
    assert (settings.xtc_probability, settings.mirostat) == (0.1, True)
    assert (settings.smoothing_factor, settings.temperature_last) == (0.2, True)
    assert [settings.token_bias[4], settings.token_bias[5]] == [0, -3]


def test_a_grammar_is_kept_to(folder: Path) -> None:
    """Nothing else comes, and the grammar hears what came."""
    mask = Only(21)
    (events,) = finish(backend(folder), job(max_tokens=3, mask=mask))

    assert tokens(events) == mask.accepted == [21, 21, 21]


def test_a_grammar_without_a_way_on_ends_the_answer(folder: Path) -> None:
    """Where nothing may come, only the end may."""
    (events,) = finish(backend(folder), job(mask=Only(None), stop_tokens=frozenset({2})))

    assert events[-1] == Ended(EndReason.STOP_TOKEN, 1)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(KeyError("x"), InternalError), (InvalidRequest("too complex"), InvalidRequest)],
)
def test_a_grammar_that_fails_takes_nobody_along(
    folder: Path, failure: Exception, kind: type[Exception]
) -> None:
    """Its own answer breaks, with its own words where it has some; others go on."""
    made = backend(folder)
    broken, other = finish(made, job(max_tokens=5, mask=Only(21, failure)), job(max_tokens=5))

    assert isinstance(broken[-1], Broke)
    assert isinstance(broken[-1].error, kind)
    assert other[-1] == Ended(EndReason.MAX_TOKENS, 5)


def test_a_cancelled_job_gives_back_its_pages(folder: Path) -> None:
    """Running or waiting; and once more is no matter."""
    made = backend(folder)
    for ticket in range(3):
        made.submit(ticket, job(max_tokens=200))
    made.step()
    assert made.free_pages == 2
    for ticket in (0, 1, 2, 0):
        made.cancel(ticket)

    assert made.free_pages == 4
    assert not made.busy()


def test_a_reset_begins_anew(folder: Path, tmp_path: Path) -> None:
    """A new generator, adapters laid over it again, and the old one's threads ended."""
    made = backend(folder, loras=(Lora(path=str(lora(tmp_path)), scale=0.5),))
    old = generator()
    old.failures.append(RuntimeError("shapes"))
    made.submit(1, job())
    with pytest.raises(RuntimeError):
        made.step()
    made.reset()

    assert generator() is not old
    assert not old.sampling_pool.running
    assert not old.filter_pool.running
    assert [one.lora_scaling for one in generator().current_loras] == [0.5]
    assert not made.busy()
    assert tokens(finish(made, job())[0]) == [3, 4, 5, 6]


def test_closing_unloads_everything(folder: Path, tmp_path: Path) -> None:
    """Model, draft and adapters."""
    made = backend(
        folder,
        guesses=2,
        draft=Draft(path=str(model(tmp_path, "small"))),
        loras=(Lora(path=str(lora(tmp_path))),),
    )
    loaded = made._loaded  # noqa: SLF001  # what must be gone
    parts, draft, one = loaded.model, loaded.draft_model, loaded.loras[0]
    made.close()

    assert (parts.loaded, draft.loaded, one.unloaded) == ("", "", True)
    assert (loaded.cache, loaded.draft_cache) == (None, None)
