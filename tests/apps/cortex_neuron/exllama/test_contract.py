"""What the adapter does with exllamav2, against what exllamav2 offers: without either running."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.apps.cortex_neuron.exllama.contract.checking import check
from tests.apps.cortex_neuron.exllama.contract.exllamav2_names import NAMES, committed
from tests.apps.cortex_neuron.exllama.contract.table import Source, Table

ROOT = Path(__file__).parents[4]
ADAPTER = ROOT / "apps/cortex_neuron/exllama/v2"
FAKE = Path(__file__).with_name("fakes") / "exllamav2"
LIBRARY = "exllamav2"
STEPPING = "cortex_neuron.exllama.stepping"

#: Mistakes as they happen: a file, what stands there, and what might have.
MISTAKES = (
    ("backend", "max_batch_size=self._slots", "max_batchsize=self._slots"),
    ("backend", "gen_settings=", "settings="),
    ("backend", "return_logits=", "return_logit="),
    ("backend", "max_new_tokens=job.max_tokens + self._guesses,", ""),
    ("backend", "self._generator.enqueue(made)", "self._generator.submit(made)"),
    ("backend", "self._generator.cancel(running.made)", "self._generator.abort(running.made)"),
    ("backend", "self._generator.unreferenced_pages", "self._generator.free_pages"),
    ("stepping", 'result["curr_progress"]', 'result["progress"]'),
    ("stepping", '"held" in result', '"kept" in result'),
    ("backend", "num_draft_tokens=", "draft_tokens="),
    ("backend", "generator.set_loras(loaded.loras)", "generator.use_loras(loaded.loras)"),
    ("loading", "config.no_sdpa = True", "config.disable_sdpa = True"),
    ("loading", "ExLlamaV2Cache_Q6", "ExLlamaV2Cache_Q5"),
    (
        "loading",
        "reserve_vram=_reserve(plan), last_id_only",
        "reserve=_reserve(plan), last_id_only",
    ),
    ("loading", "expect_cache_base=", "cache_base="),
    ("loading", "base=cache_class, max_seq_len", "cache=cache_class, max_seq_len"),
    ("loading", "lora_scaling=lora.scale", "scale=lora.scale"),
    ("loading", "config.arch_compat_overrides(", "config.compat_overrides("),
    ("loading", "has_flash_attn_with_paged", "has_paged_flash_attn"),
    ("loading", "preprocess_only=True", "preprocess=True"),
    ("sampler", "min_p=sampling.min_p", "minp=sampling.min_p"),
    ("sampler", "settings.token_repetition_penalty", "settings.repetition_penalty"),
    ("sampler", "include_special_tokens=True", "special=True"),
    ("masking", "def feed(self, token:", "def feed(self, prefix: str, token:"),
    ("masking", "super().__init__(model, tokenizer)", "super().__init__(model)"),
)


def sources() -> dict[str, str]:
    """Return the adapter's modules by name."""
    found = {
        f"cortex_neuron.exllama.v2.{one.stem}": one.read_text() for one in ADAPTER.glob("*.py")
    }
    return {**found, STEPPING: ADAPTER.with_name("stepping.py").read_text()}


def problems(text: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the adapter."""
    return check(LIBRARY, committed(), text).problems


def test_the_adapter_uses_what_there_is() -> None:
    """Every import, call, attribute and key; and nearly all of them could be looked at."""
    report = check(LIBRARY, committed(), sources())

    assert report.problems == []
    assert report.checked > 100


@pytest.mark.parametrize(("module", "right", "wrong"), MISTAKES)
def test_a_mistake_is_found(module: str, right: str, wrong: str) -> None:
    """A word that is nearly right raises nothing in Python, or only on a GPU."""
    text = sources()
    name = STEPPING if module == "stepping" else f"cortex_neuron.exllama.v2.{module}"
    assert right in text[name]
    text[name] = text[name].replace(right, wrong)

    assert problems(text) != []


def test_the_fake_has_the_real_signatures() -> None:
    """What runs against the fake runs against the library: same parameters, same keys."""
    real = committed()
    source = Source(FAKE, results=("iterate", "_next", "_told"))
    fake = source.table([name for name in NAMES if _is_faked(name)])
    private = {name for name in fake.calls if name.rpartition(".")[2].startswith("_")}

    assert {name: fake.calls[name] for name in fake.calls.keys() - private - _SETTINGS} == {
        name: real.calls[name] for name in fake.calls.keys() - private - _SETTINGS
    }
    for name in _SETTINGS:
        assert set(fake.calls[name]) <= set(real.calls[name])
    assert set(fake.results) <= set(real.results)
    assert len(fake.results) > 8
    assert len(fake.calls) > 30


#: The dataclass has only the fields that are set; each must be one of the real ones.
_SETTINGS = frozenset({"exllamav2.generator.ExLlamaV2Sampler.Settings"})


def _is_faked(name: str) -> bool:
    return name != "exllamav2.attn.has_flash_attn_with_paged"


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
