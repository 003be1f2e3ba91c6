"""What the adapter does with exllamav2, against what exllamav2 offers: without either running."""

from pathlib import Path

import pytest

from tests.apps.cortex_neuron.exllama.contract.checking import check
from tests.apps.cortex_neuron.exllama.contract.names import NAMES, committed
from tests.apps.cortex_neuron.exllama.contract.table import Source, Table

ROOT = Path(__file__).parents[4]
PACKAGE_OF = {"exllamav2": "v2", "exllamav3": "v3"}
FAKES = Path(__file__).with_name("fakes")
STEPPING = "cortex_neuron.exllama.stepping"

#: Mistakes as they happen: library, file, what stands there, and what might have.
MISTAKES = (
    ("exllamav2", "backend", "max_batch_size=self._slots", "max_batchsize=self._slots"),
    ("exllamav2", "backend", "gen_settings=", "settings="),
    ("exllamav2", "backend", "return_logits=", "return_logit="),
    ("exllamav2", "backend", "max_new_tokens=job.max_tokens + self._guesses,", ""),
    ("exllamav2", "backend", "self._generator.enqueue(made)", "self._generator.submit(made)"),
    (
        "exllamav2",
        "backend",
        "self._generator.cancel(running.made)",
        "self._generator.abort(running.made)",
    ),
    ("exllamav2", "backend", "self._generator.unreferenced_pages", "self._generator.free_pages"),
    ("exllamav2", "stepping", 'result["curr_progress"]', 'result["progress"]'),
    ("exllamav2", "stepping", '"held" in result', '"kept" in result'),
    ("exllamav2", "backend", "num_draft_tokens=", "draft_tokens="),
    (
        "exllamav2",
        "backend",
        "generator.set_loras(loaded.loras)",
        "generator.use_loras(loaded.loras)",
    ),
    ("exllamav2", "loading", "config.no_sdpa = True", "config.disable_sdpa = True"),
    ("exllamav2", "loading", "ExLlamaV2Cache_Q6", "ExLlamaV2Cache_Q5"),
    (
        "exllamav2",
        "loading",
        "reserve_vram=_reserve(plan), last_id_only",
        "reserve=_reserve(plan), last_id_only",
    ),
    ("exllamav2", "loading", "expect_cache_base=", "cache_base="),
    ("exllamav2", "loading", "base=cache_class, max_seq_len", "cache=cache_class, max_seq_len"),
    ("exllamav2", "loading", "lora_scaling=lora.scale", "scale=lora.scale"),
    ("exllamav2", "loading", "config.arch_compat_overrides(", "config.compat_overrides("),
    ("exllamav2", "loading", "has_flash_attn_with_paged", "has_paged_flash_attn"),
    ("exllamav2", "loading", "preprocess_only=True", "preprocess=True"),
    ("exllamav2", "sampler", "min_p=sampling.min_p", "minp=sampling.min_p"),
    ("exllamav2", "sampler", "settings.token_repetition_penalty", "settings.repetition_penalty"),
    ("exllamav2", "sampler", "include_special_tokens=True", "special=True"),
    ("exllamav2", "masking", "def feed(self, token:", "def feed(self, prefix: str, token:"),
    ("exllamav2", "masking", "super().__init__(model, tokenizer)", "super().__init__(model)"),
    ("exllamav3", "backend", "sampler=self._sampler", "gen_settings=self._sampler"),
    ("exllamav3", "backend", "num_draft_tokens=", "draft_tokens="),
    ("exllamav3", "backend", "ngram_match_min=", "ngram_min="),
    ("exllamav3", "backend", 'result["error"]', 'result["exception"]'),
    ("exllamav3", "backend", "self._generator.close()", "self._generator.shutdown()"),
    ("exllamav3", "loading", "max_num_tokens=tokens", "max_seq_len=tokens"),
    ("exllamav3", "loading", "k_bits=bits", "kbits=bits"),
    (
        "exllamav3",
        "loading",
        "tensor_p=plan.tensor_parallel",
        "tensor_parallel=plan.tensor_parallel",
    ),
    ("exllamav3", "loading", "Config.from_directory", "Config.from_folder"),
    ("exllamav3", "sampler", "SS_MinP", "SS_MinimumP"),
    ("exllamav3", "sampler", "sustain_range=", "range="),
    ("exllamav3", "masking", "eos_after_completed=", "stop_after="),
)


def sources(library: str) -> dict[str, str]:
    """Return the modules of a library's adapter by name."""
    package = PACKAGE_OF[library]
    folder = ROOT / "apps/cortex_neuron/exllama"
    found = {
        f"cortex_neuron.exllama.{package}.{one.stem}": one.read_text()
        for one in (folder / package).glob("*.py")
    }
    return {**found, STEPPING: (folder / "stepping.py").read_text()}


@pytest.mark.parametrize(("library", "uses"), [("exllamav2", 100), ("exllamav3", 80)])
def test_the_adapter_uses_what_there_is(library: str, uses: int) -> None:
    """Every import, call, attribute and key; and nearly all of them could be looked at."""
    report = check(library, committed(library), sources(library))

    assert report.problems == []
    assert report.checked > uses


@pytest.mark.parametrize(("library", "module", "right", "wrong"), MISTAKES)
def test_a_mistake_is_found(library: str, module: str, right: str, wrong: str) -> None:
    """A word that is nearly right raises nothing in Python, or only on a GPU."""
    text = sources(library)
    prefix = f"cortex_neuron.exllama.{PACKAGE_OF[library]}"
    name = STEPPING if module == "stepping" else f"{prefix}.{module}"
    assert right in text[name]
    text[name] = text[name].replace(right, wrong)

    assert check(library, committed(library), text).problems != []


@pytest.mark.parametrize(
    ("library", "calls", "results"), [("exllamav2", 30, 8), ("exllamav3", 30, 4)]
)
def test_the_fake_has_the_real_signatures(library: str, calls: int, results: int) -> None:
    """What runs against the fake runs against the library: same parameters, same keys."""
    real = committed(library)
    source = Source(FAKES / library, results=("iterate", "_next", "_told"))
    fake = source.table([name for name in NAMES[library] if name not in _VARIABLES])
    private = {name for name in fake.calls if name.rpartition(".")[2].startswith("_")}
    same = fake.calls.keys() - private - _PARTS - _MADE_BY_THE_LIBRARY

    assert {name: fake.calls[name] for name in same} == {name: real.calls[name] for name in same}
    for name in _PARTS & fake.calls.keys():
        assert set(fake.calls[name]) <= set(real.calls[name])
    assert set(fake.results) <= set(real.results)
    assert len(fake.results) > results
    assert len(fake.calls) > calls


#: The adapter never makes one of these itself.
_MADE_BY_THE_LIBRARY = frozenset(
    f"exllamav3.{name}"
    for name in ("CacheLayer_fp16", "CacheLayer_quant", "Config", "model.lora.LoRA")
)
_VARIABLES = frozenset({"exllamav2.attn.has_flash_attn_with_paged"})
#: These have a part of the real parameters: fields that are set, what is not passed on.
_PARTS = frozenset(
    {"exllamav2.generator.ExLlamaV2Sampler.Settings", "exllamav3.Cache", "exllamav3.Model.load"}
)


PACKAGE = {
    "__init__.py": "from lib.models import *\nfrom .deep import Job as Job\n",
    "models.py": """
from lib.base import Base
class Model(Base):
    size: int
    def __init__(self, path, *, fast=False, **kwargs):
        self.path = path
    def run(self, text, times=1, *more): ...
    @staticmethod
    def version(which): ...
""",
    "base.py": "class Base:\n    def close(self, now=True):\n        self.closed = now\n",
    "deep.py": """
from dataclasses import dataclass
@dataclass
class Job:
    text: str
    seed: int = 0
def receive_sample():
    r = {"stage": "streaming"}
    r.update({"eos": True})
""",
}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """The table of a small package."""
    root = tmp_path / "lib"
    root.mkdir()
    for name, text in PACKAGE.items():
        (root / name).write_text(text)
    return Source(root).table(["lib.Model", "lib.Job"])


def test_a_table_is_read_from_source(table: Table) -> None:
    """Through re-exports, base classes, dataclasses, and static methods."""
    assert table.calls == {
        "lib.Model": ["path", "fast="],
        "lib.Model.run": ["text", "times=", "*more"],
        "lib.Model.version": ["which"],
        "lib.Model.close": ["now="],
        "lib.Job": ["text", "seed="],
    }
    assert table.attributes["lib.Model"] == [
        "__init__", "close", "closed", "path", "run", "size", "version"
    ]  # fmt: skip
    assert table.results == ["eos", "stage"]


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A table of a name that the package lost would say yes to everything."""
    root = tmp_path / "lib"
    root.mkdir()
    (root / "__init__.py").write_text("")

    with pytest.raises(LookupError, match=r"lib\.Gone"):
        Source(root).table(["lib.Gone"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Model('x').run('y', times=2)", None),
        ("Model('x').run()", "'text' is missing"),
        ("Model('x').run('y', count=2)", "no parameter 'count'"),
        ("Model('x', 'y', 'z')", "too many arguments"),
        ("Model('x', slow=1)", "no parameter 'slow'"),
        ("model = Model('x'); model.paht = 1", "has no 'paht'"),
        ("model = Model('x'); model.close(True)", None),
        ("from lib import Modell", "there is no lib.Modell"),
    ],
)
def test_a_line_is_checked(table: Table, line: str, problem: str | None) -> None:
    """One use at a time."""
    found = check("lib", table, {"m": f"from lib import Model\n{line}\n"}).problems

    assert (found == []) if problem is None else (problem in "".join(found))
