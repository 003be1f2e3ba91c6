"""The adapter's own code, run against the fakes: torch and exllamav2 are not here.

The real library answers for the rest (`make exllamav2-check`).
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from orjson import dumps

from cortex_core.errors import InternalError, InvalidRequest, PreflightFailed
from cortex_neuron.exllama.jobs import (
    Broke,
    Ended,
    EndReason,
    Generated,
    Job,
    JobEvent,
    Prefilled,
    Started,
)
from cortex_neuron.exllama.plan import Draft, Lora, Plan
from cortex_neuron.exllama.sampling import Sampling

FAKES = Path(__file__).with_name("fakes")
HALF = 40
_OURS = ("torch", "exllamav2", "cortex_neuron.exllama.v2.")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The fakes, where exllamav2 and torch would be; and the adapter on top of them."""
    kept = {name: sys.modules.pop(name) for name in tuple(sys.modules) if name.startswith(_OURS)}
    monkeypatch.syspath_prepend(str(FAKES))
    yield importlib.import_module("exllamav2")
    for name in tuple(sys.modules):
        if name.startswith(_OURS):
            del sys.modules[name]
    sys.modules.update(kept)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder."""
    return model(tmp_path, "model")


def model(parent: Path, name: str) -> Path:
    """Write a model's folder."""
    made = parent / name
    made.mkdir()
    (made / "config.json").write_bytes(dumps({"rope_theta": 10000.0}))
    return made


def backend(folder: Path, **more: Any) -> Any:
    """Return the adapter with a model of a small plan."""
    made = importlib.import_module("cortex_neuron.exllama.v2.backend")
    small = {"context": 512, "cache": 1024, "chunk": 256, "slots": 2}
    return made.ExLlamaV2Backend(Plan(path=str(folder), **{**small, **more}), lambda _d, _t: None)


def job(*prompt: int, max_tokens: int = 4, **more: Any) -> Job:
    """Return a greedy job."""
    greedy = Sampling(temperature=0)
    return Job(**{"prompt": prompt or (1, 2), "max_tokens": max_tokens, "sampling": greedy, **more})


def finish(made: Any, *jobs: Job) -> list[list[JobEvent]]:
    """Return everything that comes of jobs."""
    found: dict[int, list[JobEvent]] = {}
    for ticket, one in enumerate(jobs):
        found[ticket] = []
        made.submit(ticket, one)
    while made.busy():
        for ticket, event in made.step():
            found[ticket].append(event)
    return list(found.values())


def tokens(events: list[JobEvent]) -> list[int]:
    """Return the tokens among events."""
    return [token for event in events if isinstance(event, Generated) for token in event.tokens]


def generator() -> Any:
    """Return the newest generator."""
    return sys.modules["exllamav2.generator"].ExLlamaV2DynamicGenerator.made[-1]


def test_a_job_is_told_from_its_beginning_to_its_end(library: Any, folder: Path) -> None:
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


def test_a_stop_token_is_counted_and_not_told(library: Any, folder: Path) -> None:
    """Neither is it when the library gives it only with what it held back."""
    (events,) = finish(backend(folder), job(5, max_tokens=9, stop_tokens=frozenset({8})))

    assert tokens(events) == [6, 7]
    assert events[-1] == Ended(EndReason.STOP_TOKEN, 3)


def test_held_tokens_come_in_the_end(library: Any, folder: Path) -> None:
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
def test_guessing_takes_nothing_from_an_answer(
    library: Any, folder: Path, tmp_path: Path, draft: bool
) -> None:
    """The library stops early where it guesses; the room for guesses is not promised away."""
    small = Draft(path=str(model(tmp_path, "small"))) if draft else None
    made = backend(folder, guesses=4, draft=small)
    (events,) = finish(made, job(max_tokens=10))

    assert len(tokens(events)) == 10
    assert made.limits.cache == 1024 - 4
    finish(made, job(max_tokens=made.limits.cache - 2))


def test_log_probabilities_are_of_the_logits(library: Any, folder: Path) -> None:
    """Of every token, held ones included, with the likeliest beside it."""
    (events,) = finish(backend(folder), job(HALF - 2, max_tokens=3, top_logprobs=2))

    said = [odds for event in events if isinstance(event, Generated) for odds in event.logprobs]
    assert len(said) == 3
    for token, odds in zip(tokens(events), said, strict=True):
        assert odds.top[0] == (token, odds.logprob)
        assert len(odds.top) == 2
        assert -1.0 < odds.logprob < 0


def test_nothing_is_sampled_that_was_not_asked_for(library: Any, folder: Path) -> None:
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


def test_sampling_arrives(library: Any, folder: Path) -> None:
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


class Only:
    """A mask that allows one token, and fails when it is told to."""

    def __init__(self, token: int, failure: Exception | None = None) -> None:
        self.token, self.failure = token, failure
        self.accepted: list[int] = []

    def allowed(self) -> bytes:
        """Return a bit for it."""
        if self.failure is not None and self.accepted:
            raise self.failure
        return (1 << self.token).to_bytes(8, "little") if self.token >= 0 else bytes(8)

    def accept(self, token: int) -> None:
        """Remember a token."""
        self.accepted.append(token)


def test_a_grammar_is_kept_to(library: Any, folder: Path) -> None:
    """Nothing else comes, and the grammar hears what came."""
    mask = Only(21)
    (events,) = finish(backend(folder), job(max_tokens=3, mask=mask))

    assert tokens(events) == mask.accepted == [21, 21, 21]


def test_a_grammar_without_a_way_on_ends_the_answer(library: Any, folder: Path) -> None:
    """Where nothing may come, only the end may."""
    (events,) = finish(backend(folder), job(mask=Only(-1), stop_tokens=frozenset({2})))

    assert events[-1] == Ended(EndReason.STOP_TOKEN, 1)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(KeyError("x"), InternalError), (InvalidRequest("too complex"), InvalidRequest)],
)
def test_a_grammar_that_fails_takes_nobody_along(
    library: Any, folder: Path, failure: Exception, kind: type[Exception]
) -> None:
    """Its own answer breaks, with its own words where it has some; others go on."""
    made = backend(folder)
    broken, other = finish(made, job(max_tokens=5, mask=Only(21, failure)), job(max_tokens=5))

    assert isinstance(broken[-1], Broke)
    assert isinstance(broken[-1].error, kind)
    assert other[-1] == Ended(EndReason.MAX_TOKENS, 5)


def test_a_cancelled_job_gives_back_its_pages(library: Any, folder: Path) -> None:
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


def test_a_reset_begins_anew(library: Any, folder: Path, tmp_path: Path) -> None:
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


def test_closing_unloads_everything(library: Any, folder: Path, tmp_path: Path) -> None:
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


def lora(parent: Path) -> Path:
    """Write an adapter's folder."""
    made = parent / "lora"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"")
    return made


def test_the_traps_are_kept_out_of(library: Any, folder: Path) -> None:
    """No plain SDPA; one sequence a row; chunks and lengths as planned."""
    config = backend(folder)._loaded.config  # noqa: SLF001  # what the model was made with

    assert config.no_sdpa is True
    assert config.max_batch_size == 1
    assert (config.max_seq_len, config.max_input_len) == (512, 256)
    assert config.max_attention_size == 256**2


@pytest.mark.parametrize(
    ("capability", "flash", "paged"), [(8, True, True), (7, True, False), (8, False, False)]
)
def test_pages_need_cards_and_flash_attention(
    library: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: int,
    flash: bool,
    paged: bool,
) -> None:
    """Without, one job runs at a time, in one page."""
    torch = importlib.import_module("torch")
    attn = importlib.import_module("exllamav2.attn")
    monkeypatch.setattr(attn, "has_flash_attn_with_paged", flash)
    card = type("Card", (), {"major": capability})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: card)
    made = backend(folder)

    assert generator().paged is paged
    assert made.limits.slots == (2 if paged else 1)
    assert made.limits.page == (256 if paged else 1024)
    assert made._loaded.config.no_flash_attn is not paged  # noqa: SLF001  # what it was made with


@pytest.mark.parametrize(
    ("more", "how", "split"),
    [
        ({}, "anywhere", None),
        ({"reserve_mb": (512,)}, "anywhere", [512 << 20]),
        ({"split_mb": (2048,)}, "by hand", [2.0]),
        ({"split_mb": (3072,), "tensor_parallel": True}, "in pieces", [3.0]),
        ({"tensor_parallel": True, "reserve_mb": (1024,)}, "in pieces", [7.0]),
    ],
)
def test_a_model_is_split_as_planned(
    library: Any, folder: Path, more: dict[str, Any], how: str, split: Any
) -> None:
    """Tensors are never split without saying how: the library would ask a program."""
    loaded = backend(folder, **more)._loaded  # noqa: SLF001  # how it was loaded

    assert (loaded.model.loaded, loaded.model.split) == (how, split)


@pytest.mark.parametrize("mode", ["FP16", "Q8", "Q6", "Q4"])
def test_a_cache_is_kept_as_planned(library: Any, folder: Path, mode: str) -> None:
    """In 16 bits or in fewer."""
    cache = backend(folder, cache_mode=mode)._loaded.cache  # noqa: SLF001  # what was made
    name = type(cache).__name__

    assert name == "ExLlamaV2Cache" + ("" if mode == "FP16" else f"_{mode}")
    assert cache.max_seq_len == 1024


def test_positions_are_told_as_the_model_was_made(library: Any, tmp_path: Path) -> None:
    """By the newer kind of config.json, and as an operator stretches them."""
    folder = model(tmp_path, "newer")
    newer = {"rope_type": "default", "rope_theta": 5e5}
    (folder / "config.json").write_bytes(dumps({"rope_parameters": newer}))
    config = backend(folder, rope_scale=2.0, rope_alpha=1.5)._loaded.config  # noqa: SLF001

    assert config.rotary_embedding_base == 5e5
    assert (config.scale_pos_emb, config.scale_alpha_value) == (2.0, 1.5)


def test_positions_that_are_not_read_are_refused(library: Any, tmp_path: Path) -> None:
    """Scaling that the library does not see would make nonsense of long prompts."""
    folder = model(tmp_path, "yarn")
    (folder / "config.json").write_bytes(dumps({"rope_parameters": {"rope_type": "yarn"}}))

    with pytest.raises(PreflightFailed):
        backend(folder)


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        (lambda parent: {"loras": (Lora(path=str(parent)),)}, "LoRA"),
        (lambda parent: {"draft": Draft(path=str(model(parent, "other")))}, "vocabulary"),
    ],
)
def test_what_does_not_belong_to_the_model_is_refused(
    library: Any,
    folder: Path,
    tmp_path: Path,
    plan: Callable[[Path], dict[str, Any]],
    what: str,
) -> None:
    """An adapter without weights, a draft of other words."""
    with pytest.raises(PreflightFailed, match=what):
        backend(folder, guesses=2, **plan(tmp_path))


def test_a_load_is_told_of_all_its_models(library: Any, folder: Path, tmp_path: Path) -> None:
    """The draft's modules and the model's are one count."""
    made = importlib.import_module("cortex_neuron.exllama.v2.backend")
    told: list[tuple[int, int]] = []
    plan = Plan(
        path=str(folder),
        context=512,
        cache=512,
        chunk=256,
        guesses=2,
        draft=Draft(path=str(model(tmp_path, "small"))),
    )
    made.ExLlamaV2Backend(plan, lambda done, total: told.append((done, total)))

    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert told == sorted(told)
