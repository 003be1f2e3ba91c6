"""The real exllamav2, in this process, against a llama that was written from the formulas."""

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.jobs import Broke, Ended, EndReason, Generated, Prefilled
from cortex_neuron.exllama.plan import Draft, Lora
from cortex_neuron.exllama.sampling import Sampling
from tests.exllamav2.reference import CLOSE, Reference
from tests.exllamav2.running import PROMPT, Bench, job, plan, run
from tests.exllamav2.tiny_models import write_lora, write_random, write_scripted


async def test_load_tells_how_far_it_is(bench: Bench, random_model: Path) -> None:
    """From nothing to every module, never backwards."""
    bench.engine(plan(random_model))

    assert bench.progress[0] == (0, 7)
    assert bench.progress[-1] == (7, 7)
    assert bench.progress == sorted(bench.progress)


@pytest.mark.parametrize("capability", ["8.6", "7.5"])
async def test_greedy_answers_are_the_references(
    bench: Bench, random_model: Path, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token for token, with pages and without: a mask that is wrong in prefill would show."""
    major, minor = capability.split(".")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: _Card(int(major), int(minor))
    )
    engine = bench.engine(plan(random_model))
    prompt, wanted = Reference(random_model).certain(20)

    outcome = await run(engine, job(prompt, max_tokens=20))

    assert outcome.tokens == wanted
    assert outcome.end == Ended(EndReason.MAX_TOKENS, 20)
    assert engine.limits.slots == (4 if capability == "8.6" else 1)
    assert engine.limits.page == (256 if capability == "8.6" else 2048)


class _Card:
    def __init__(self, major: int, minor: int) -> None:
        self.major, self.minor = major, minor


async def test_jobs_share_steps_and_not_their_answers(bench: Bench, random_model: Path) -> None:
    """Eight prompts on four seats: each answer is its own prompt's."""
    engine = bench.engine(plan(random_model))
    reference = Reference(random_model)
    known = [reference.certain(6, seed) for seed in range(8)]

    found = await asyncio.gather(*(run(engine, job(prompt, max_tokens=6)) for prompt, _ in known))

    assert [one.tokens for one in found] == [wanted for _, wanted in known]
    assert engine.jobs == {}


async def test_prefill_is_told_as_it_goes(bench: Bench, random_model: Path) -> None:
    """A prompt of several chunks has as many reports, the last of the whole prompt."""
    engine = bench.engine(plan(random_model))

    outcome = await run(engine, job(PROMPT * 12, max_tokens=1))

    told = [one for one in outcome.events if isinstance(one, Prefilled)]
    assert [one.done for one in told] == [256, 512, 719]
    assert {one.total for one in told} == {719}


async def test_a_stop_token_ends_an_answer_unsaid(bench: Bench, random_model: Path) -> None:
    """It counts as generated and is not told; before `min_tokens` it does not come at all."""
    engine = bench.engine(plan(random_model))
    free = await run(engine, job())
    stop = free.tokens[6]
    first = free.tokens.index(stop)

    stopped = await run(engine, job(stop_tokens=frozenset({stop})))
    later = await run(engine, job(stop_tokens=frozenset({stop}), min_tokens=10))

    assert stopped.tokens == free.tokens[:first]
    assert stopped.end == Ended(EndReason.STOP_TOKEN, first + 1)
    assert len(later.tokens) >= 10
    assert stop not in later.tokens


async def test_log_probabilities_are_the_references(bench: Bench, random_model: Path) -> None:
    """Of the token that came, and of the best at its place, as the whole vocabulary has them."""
    engine = bench.engine(plan(random_model))
    outcome = await run(engine, job(max_tokens=8, top_logprobs=3))

    rows = Reference(random_model).logits([*PROMPT, *outcome.tokens])[len(PROMPT) - 1 : -1]
    known = rows.log_softmax(dim=-1)
    for at, (token, odds) in enumerate(zip(outcome.tokens, outcome.logprobs, strict=True)):
        assert odds.logprob == pytest.approx(float(known[at, token]), abs=CLOSE)
        assert len(odds.top) == 3
        assert odds.top[0] == (token, odds.logprob)
        for other, value in odds.top:
            assert value == pytest.approx(float(known[at, other]), abs=CLOSE)


async def test_log_probabilities_come_while_tokens_are_held(bench: Bench, tmp_path: Path) -> None:
    """Half a character waits for its other half; each of its tokens still has its own."""
    model = write_scripted(tmp_path / "m", ["so ", *_byte_tokens("é"), "!"], begin="Q:")
    engine = bench.engine(plan(model))

    outcome = await run(engine, job(_ids(model, "Q:"), stop_tokens=frozenset({2}), top_logprobs=0))

    assert len(outcome.tokens) == 4
    assert len(outcome.logprobs) == 4
    assert outcome.end == Ended(EndReason.STOP_TOKEN, 5)


async def test_sampling_is_repeatable_and_neutral(bench: Bench, random_model: Path) -> None:
    """The same seed says the same; another one, or none of exllamav2's defaults, does not."""
    engine = bench.engine(plan(random_model))
    plain = Sampling()

    prompt, wanted = Reference(random_model).certain(20)
    one, same, other = [
        await run(engine, job(max_tokens=24, sampling=plain, seed=seed)) for seed in (5, 5, 6)
    ]
    single = await run(engine, job(prompt, max_tokens=20, sampling=Sampling(top_k=1), seed=6))

    assert one.tokens == same.tokens
    assert one.tokens != other.tokens
    # A repetition penalty of its own (1.025) would change what is likeliest.
    assert single.tokens == wanted


async def test_every_way_of_sampling_runs(bench: Bench, random_model: Path) -> None:
    """Penalties, biases, DRY and the like go through the real sampler's Python."""
    engine = bench.engine(plan(random_model))
    free = (await run(engine, job(max_tokens=1))).tokens[0]
    wild = Sampling(
        temperature=0.9,
        top_p=0.9,
        top_k=40,
        min_p=0.01,
        typical_p=0.9,
        tfs=0.9,
        repetition_penalty=1.2,
        repetition_range=64,
        presence_penalty=0.3,
        frequency_penalty=0.3,
        dry_multiplier=0.8,
        dry_range=30,
        dry_sequence_breakers=("\n", "."),
        xtc_probability=0.5,
        mirostat=True,
        smoothing_factor=0.2,
        temperature_last=True,
        logit_bias={free: -100.0},
    )

    outcome = await run(engine, job(max_tokens=64, sampling=wild, seed=1))
    tiny = await run(engine, job((50,), max_tokens=40, sampling=wild, seed=1))
    biased = await run(engine, job(sampling=Sampling(temperature=0, logit_bias={free: -100.0})))

    assert len(outcome.tokens) == 64
    assert len(tiny.tokens) == 40
    assert biased.tokens[0] != free


async def test_cancelling_gives_back_every_page(bench: Bench, random_model: Path) -> None:
    """Running or waiting, whoever leaves is gone after the step that is under way."""
    engine = bench.engine(plan(random_model, slots=1))
    (backend,) = bench.backends
    steps = 0

    async with engine.running(job(max_tokens=900)) as events:
        waiting = [asyncio.create_task(run(engine, job(max_tokens=900))) for _ in range(2)]
        async for event in events:
            if isinstance(event, Generated):
                break
        step = backend.step

        def counted() -> Any:
            nonlocal steps
            steps += 1
            return step()

        backend.step = counted
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        while backend.busy():  # noqa: ASYNC110  # its thread tells nobody
            await asyncio.sleep(0.001)
    after = await run(engine, job(max_tokens=2))

    assert steps <= 2 + 2  # one under way when it was wrapped, one when it was left, and two more
    assert engine.free_pages == engine.limits.cache // engine.limits.page
    assert len(after.tokens) == 2


async def test_a_prompt_that_is_known_is_not_read_again(bench: Bench, random_model: Path) -> None:
    """The second time all but its last token comes from the cache, and the answer is the same."""
    engine = bench.engine(plan(random_model))
    long = PROMPT * 5

    first = await run(engine, job(long))
    second = await run(engine, job(long))
    longer = await run(engine, job([*long, *first.tokens, 7, 8]))

    assert (first.cached, second.cached) == (0, len(long) - 1)
    assert second.tokens == first.tokens
    assert longer.cached >= len(long)


@pytest.mark.parametrize("way", ["ngram", "draft", "draft of another model"])
async def test_guessing_ahead_changes_nothing(
    bench: Bench, random_model: Path, tmp_path: Path, way: str
) -> None:
    """Not the tokens, not how many there are, and not where a stop token ends them."""
    draft = {
        "ngram": None,
        "draft": Draft(path=str(random_model)),
        "draft of another model": Draft(path=str(write_random(tmp_path / "other", seed=8))),
    }[way]
    engine = bench.engine(plan(random_model, guesses=4, draft=draft))
    prompt, wanted = Reference(random_model).certain(20)

    outcome = await run(engine, job(prompt, max_tokens=20))
    stopped = await run(engine, job(prompt, stop_tokens=frozenset({wanted[11]})))
    filled = await run(engine, job([9] * 1000, max_tokens=24))

    assert outcome.tokens == wanted
    assert outcome.end == Ended(EndReason.MAX_TOKENS, 20)
    assert stopped.tokens == wanted[: wanted.index(wanted[11])]
    assert len(filled.tokens) == 24


async def test_a_draft_of_another_vocabulary_is_refused(
    bench: Bench, random_model: Path, tmp_path: Path
) -> None:
    """Its guesses would be other words."""
    other = write_scripted(tmp_path / "other", ["one", "two"])

    with pytest.raises(PreflightFailed, match="vocabulary"):
        bench.engine(plan(random_model, guesses=2, draft=Draft(path=str(other))))


async def test_an_adapter_lies_over_every_answer(
    bench: Bench, random_model: Path, tmp_path: Path
) -> None:
    """With it the model says what the reference says whose weights have it added."""
    lora = write_lora(tmp_path / "lora", random_model)
    engine = bench.engine(plan(random_model, loras=(Lora(path=str(lora), scale=0.5),)))
    reference = Reference(random_model, lora, scale=0.5)
    prompt, wanted = reference.certain(12)

    outcome = await run(engine, job(prompt, max_tokens=12))

    assert outcome.tokens == wanted
    assert wanted != Reference(random_model).greedy(prompt, 12)


async def test_a_pickle_is_no_adapter(bench: Bench, random_model: Path, tmp_path: Path) -> None:
    """adapter_model.bin could run anything: it is not opened."""
    lora = write_lora(tmp_path / "lora", random_model)
    (lora / "adapter_model.safetensors").rename(lora / "adapter_model.bin")

    with pytest.raises(PreflightFailed, match="LoRA"):
        bench.engine(plan(random_model, loras=(Lora(path=str(lora)),)))


async def test_a_step_that_fails_is_got_over(
    bench: Bench, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was running is told; a new generator serves the next, with all its pages."""
    engine = bench.engine(plan(random_model))
    (backend,) = bench.backends
    model = backend._loaded.model  # noqa: SLF001  # what fails is inside
    real = model.forward_chunk

    def fail(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(model, "forward_chunk", real)
        raise RuntimeError("sizes of tensors must match")

    monkeypatch.setattr(model, "forward_chunk", fail)
    prompt, wanted = Reference(random_model).certain(16)
    lost = await asyncio.gather(run(engine, job()), run(engine, job()))
    after = await run(engine, job(prompt))

    assert all(isinstance(one.events[-1], Broke) for one in lost)
    assert after.tokens == wanted
    assert engine.free_pages == 8


async def test_unloading_leaves_nothing_behind(random_model: Path) -> None:
    """Neither the model, nor its cache, nor the generator can be reached any more."""
    own = Bench()
    engine = own.engine(plan(random_model))
    await run(engine, job(sampling=Sampling(dry_multiplier=0.5, xtc_probability=0.5)))
    (backend,) = own.backends
    loaded, generator = backend._loaded, backend._generator  # noqa: SLF001  # what must be gone
    watched = [weakref.ref(one) for one in (loaded.model, loaded.cache, generator)]
    tensors = [weakref.ref(one) for one in loaded.cache.key_states]

    await own.close()
    own.backends.clear()
    del engine, backend, loaded, generator, own
    gc.collect()

    assert [one() for one in (*watched, *tensors)] == [None] * 5


async def test_a_load_that_is_broken_off_raises(random_model: Path, tmp_path: Path) -> None:
    """Weights that end early are an error of the load, not of the first request."""
    broken = write_random(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2000])

    with pytest.raises(RuntimeError, match="shorter"):
        Bench().engine(plan(broken))


def _byte_tokens(text: str) -> list[str]:
    """Return the names of the tokens that are single bytes of `text`."""
    from tokenizers import pre_tokenizers  # noqa: PLC0415

    name: str = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)[0][0]
    return list(name)


def _ids(model: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer  # noqa: PLC0415

    found: list[int] = Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids
    return found
