"""The hub's cache, laid out by hand, and a small hub that answers on a local port."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources import FetchCancelled, Fetching, HuggingFaceSource, find, resolve
from cortex_neuron.sources import downloading as downloading_module
from cortex_neuron.sources.hub_cache import Repository, cache_folder
from tests.apps.cortex_neuron.sources.hub_stand_in import REPO, Hub, commit_of, serving

COMMIT = "c" * 40
NOBODY = "http://127.0.0.1:9"
SOURCE = HuggingFaceSource(repo=REPO)
MODEL = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model-00001-of-00002.safetensors": b"1" * 3_000_000,
    "model-00002-of-00002.safetensors": b"2" * 1_000_000,
}
BESIDE = {
    "README.md": b"read me",
    "pytorch_model.bin": b"x" * 50,
    "consolidated.safetensors": b"c" * 70,
    "original/consolidated.00.pth": b"x" * 50,
}


def lay(cache: Path, *names: str) -> Path:
    """Lay out a cached repository `org/repo` and return its snapshot."""
    repo = cache / "models--org--repo"
    snapshot = repo / "snapshots" / COMMIT
    for name in names:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(b"GGUF")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.fixture(name="offline")
def _offline(tmp_path: Path) -> Fetching:
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": NOBODY}
    return Fetching(cache_dir=tmp_path / "cache", environment=environment)


@pytest.fixture(name="hub")
def _hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


@pytest.fixture(name="fetching")
def _fetching(tmp_path: Path, hub: Hub) -> Fetching:
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": hub.url}
    return Fetching(cache_dir=tmp_path / "cache", environment=environment)


def kind_of(source: HuggingFaceSource, quant: str | None, fetching: Fetching) -> str:
    """Return why a source cannot be had."""
    with pytest.raises(PreflightFailed) as caught:
        resolve(source, quant, fetching)
    return caught.value.kind


# --- without the hub -----------------------------------------------------------------------------


def test_a_hub_out_of_reach_is_no_failure_with_a_warm_cache(
    tmp_path: Path, offline: Fetching
) -> None:
    """By file, by quant, by revision: the cache answers."""
    snapshot = lay(tmp_path / "hub", "m-Q4_0.gguf", "m-Q8_0.gguf")
    by_file = HuggingFaceSource(repo=REPO, file="m-Q4_0.gguf")
    by_commit = HuggingFaceSource(repo=REPO, revision=COMMIT)

    assert resolve(by_file, None, offline) == snapshot / "m-Q4_0.gguf"
    assert resolve(SOURCE, "q8_0", offline) == snapshot / "m-Q8_0.gguf"
    assert resolve(by_commit, "q4_0", offline) == snapshot / "m-Q4_0.gguf"


def test_offline_by_choice_asks_nobody(tmp_path: Path) -> None:
    """HF_HUB_OFFLINE goes straight to the cache."""
    snapshot = lay(tmp_path / "home/hub", "m.gguf")
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    fetching = Fetching(cache_dir=tmp_path, environment=environment)

    assert resolve(SOURCE, None, fetching) == snapshot / "m.gguf"


@pytest.mark.parametrize("file", [None, "other.gguf", "m-00001-of-00002.gguf"])
def test_what_is_not_cached_cannot_be_had_offline(
    tmp_path: Path, offline: Fetching, file: str | None
) -> None:
    """The sentence says what to do; a shard that is missing counts as missing."""
    if file is not None:
        lay(tmp_path / "hub", "m-00001-of-00002.gguf")
    with pytest.raises(PreflightFailed, match="network") as caught:
        resolve(HuggingFaceSource(repo=REPO, file=file), None, offline)

    assert caught.value.kind == "fetch_failed"


def test_a_folder_that_is_half_there_cannot_be_had_offline(
    tmp_path: Path, offline: Fetching
) -> None:
    """What is missing is named; nobody loads the half."""
    lay(tmp_path / "hub", "config.json", "model-00001-of-00002.safetensors")
    with pytest.raises(PreflightFailed, match=r"model-00002-of-00002\.safetensors") as caught:
        resolve(SOURCE, None, offline)

    assert caught.value.kind == "fetch_failed"


def test_what_is_kept_is_found_without_the_hub(hub: Hub, fetching: Fetching) -> None:
    """Nobody is asked, though somebody would answer; what is not here is None, not a failure."""
    snapshot = lay(cache_folder(fetching.environment), "m-Q4_0.gguf")

    assert find(SOURCE, None, fetching) == snapshot / "m-Q4_0.gguf"
    assert find(SOURCE, "q8_0", fetching) is None
    assert find(HuggingFaceSource(repo="org/other"), None, fetching) is None
    assert not hub.asked


# --- with the hub --------------------------------------------------------------------------------


def test_all_shards_are_fetched(hub: Hub, fetching: Fetching) -> None:
    """The first shard is returned, the others lie beside it, and progress adds up."""
    hub.files.update({f"m-Q4_0-0000{n}-of-00002.gguf": b"x" * 1000 * n for n in (1, 2)})
    told = list[tuple[int, int | None]]()
    telling = Fetching(
        cache_dir=fetching.cache_dir,
        environment=fetching.environment,
        report=lambda done, total: told.append((done, total)),
    )
    path = resolve(SOURCE, "q4_0", telling)

    assert path.name == "m-Q4_0-00001-of-00002.gguf"
    assert path.with_name("m-Q4_0-00002-of-00002.gguf").stat().st_size == 2000
    assert told[-1] == (3000, 3000)
    assert told == sorted(told)


def test_only_what_is_needed_of_a_folder_is_fetched(hub: Hub, fetching: Fetching) -> None:
    """Weights and the files that explain them; no other copy of them, and no pickle."""
    hub.files.update(MODEL | BESIDE)
    folder = resolve(SOURCE, None, fetching)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == MODEL
    assert {name for name, _ in hub.fetched} == set(MODEL)


def test_a_fetch_is_of_one_commit_and_found_offline_afterwards(
    hub: Hub, fetching: Fetching
) -> None:
    """By branch and by commit; a second fetch loads nothing, and what a new one brings is new."""
    hub.files.update(MODEL)
    first = resolve(SOURCE, None, fetching)
    hub.asked.clear()
    again = resolve(SOURCE, None, fetching)
    quiet = Fetching(
        cache_dir=fetching.cache_dir, environment={**fetching.environment, "HF_HUB_OFFLINE": "1"}
    )

    assert first.name == commit_of("main")
    assert again == first
    assert hub.fetched == []
    assert resolve(SOURCE, None, quiet) == first
    assert resolve(HuggingFaceSource(repo=REPO, revision=commit_of("main")), None, quiet) == first


@pytest.mark.parametrize("quant", ["4.0bpw", "4bpw", "4_0", "4.0BPW"])
def test_a_quant_is_a_branch(hub: Hub, fetching: Fetching, quant: str) -> None:
    """As EXL2 is published; online, and then without the hub."""
    hub.files.update({"README.md": b"branches"})
    hub.branches |= {"4.0bpw": dict(MODEL), "6.5bpw": {**MODEL, "tokenizer.json": b"[]"}}
    folder = resolve(SOURCE, quant, fetching)

    assert folder.name == commit_of("4.0bpw")
    assert find(SOURCE, quant, fetching) == folder


def test_a_quant_is_a_folder_of_the_repository(hub: Hub, fetching: Fetching) -> None:
    """Only that one is fetched."""
    for quant in ("4.0bpw", "6.0bpw"):
        hub.files.update({f"exl2/{quant}/{name}": data for name, data in MODEL.items()})
    folder = resolve(SOURCE, "6.0bpw", fetching)

    assert sorted(path.name for path in folder.iterdir()) == sorted(MODEL)
    assert len(hub.fetched) == len(MODEL)
    assert find(SOURCE, "6.0bpw", fetching) == folder
    assert find(SOURCE, "4.0bpw", fetching) is None


def test_a_quant_that_is_nowhere_names_the_nearest(hub: Hub, fetching: Fetching) -> None:
    """Among branches; and without a quant, all that there are."""
    hub.branches |= {"4.0bpw": dict(MODEL), "6.5bpw": dict(MODEL)}
    with pytest.raises(PreflightFailed) as caught:
        resolve(SOURCE, "6.0bpw", fetching)
    with pytest.raises(PreflightFailed) as nameless:
        resolve(SOURCE, None, fetching)

    assert caught.value.kind == nameless.value.kind == "quant_not_found"
    assert caught.value.extra["nearest"] == "6.5bpw"
    assert nameless.value.extra["available"] == ["4.0bpw", "6.5bpw"]


def test_what_the_repository_lacks_is_not_found(hub: Hub, fetching: Fetching) -> None:
    """A file, a quant and a repository that are not there, and one that holds no model."""
    hub.files.update({"m-Q4_0.gguf": b"x", "m-Q8_0.gguf": b"x"})
    kinds = [
        kind_of(HuggingFaceSource(repo=REPO, file="m-Q4_1.gguf"), None, fetching),
        kind_of(SOURCE, "Q5_0", fetching),
        kind_of(HuggingFaceSource(repo="org/none"), None, fetching),
        kind_of(HuggingFaceSource(repo=REPO, revision="gone"), None, fetching),
    ]
    hub.files.clear()
    hub.files.update(BESIDE)

    assert kinds == ["not_found", "quant_not_found", "not_found", "not_found"]
    assert kind_of(SOURCE, None, fetching) == "unsupported_format"


def test_shards_that_the_hub_lacks_are_named_before_a_byte_is_fetched(
    hub: Hub, fetching: Fetching
) -> None:
    """An upload that is not complete cannot become a model."""
    hub.files.update(MODEL)
    del hub.files["model-00001-of-00002.safetensors"]

    with pytest.raises(PreflightFailed, match="model-00001-of-00002"):
        resolve(SOURCE, None, fetching)
    assert hub.fetched == []


def test_a_fetch_nobody_wants_does_not_begin(hub: Hub, fetching: Fetching) -> None:
    """The event is looked at before the hub is asked."""
    fetching.cancelled.set()

    with pytest.raises(FetchCancelled):
        resolve(SOURCE, None, fetching)
    assert not hub.asked


# --- bad days ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading_module, "_FIRST_PAUSE_SECS", 0.001)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_gone_on_with(hub: Hub, fetching: Fetching, *, ranges: bool) -> None:
    """From the byte where it broke, as long as something comes; from the start if it must be."""
    hub.files.update({"m.gguf": b"0123456789" * 300_000})
    hub.break_after, hub.ranges = [1_000_000] * (2 if ranges else 1), ranges
    path = resolve(SOURCE, None, fetching)

    assert path.read_bytes() == hub.files["m.gguf"]
    starts = [range_ for _, range_ in hub.fetched]
    assert starts == [None, "bytes=1000000-", "bytes=2000000-"][: len(starts)]


def test_a_download_that_was_given_up_goes_on_later(hub: Hub, fetching: Fetching) -> None:
    """What came is kept; the next attempt asks for the rest alone, and no partial file is left."""
    hub.files.update({"m.gguf": b"0123456789" * 300_000})
    hub.break_after = [1_000_000] + [0] * 9
    with pytest.raises(PreflightFailed, match="goes on there") as caught:
        resolve(SOURCE, None, fetching)
    repository = Repository(cache_folder(fetching.environment), REPO)
    left = repository.partial_bytes
    hub.break_after.clear()
    hub.asked.clear()
    path = resolve(SOURCE, None, fetching)

    assert caught.value.kind == "fetch_failed"
    assert caught.value.extra["done_bytes"] == left == 1_000_000
    assert find(SOURCE, None, fetching) == path
    assert hub.fetched == [("m.gguf", "bytes=1000000-")]
    assert path.read_bytes() == hub.files["m.gguf"]
    assert repository.partial_bytes == 0


def test_a_cancelled_download_keeps_what_it_has(hub: Hub, fetching: Fetching) -> None:
    """And is no model meanwhile."""
    hub.files.update({"m.gguf": b"x" * 8_000_000})
    stop = threading.Event()

    def stop_soon(done: int, _total: int | None) -> None:
        if done:
            stop.set()

    stopping = Fetching(
        cache_dir=fetching.cache_dir,
        environment=fetching.environment,
        report=stop_soon,
        cancelled=stop,
    )
    with pytest.raises(FetchCancelled):
        resolve(SOURCE, None, stopping)

    assert Repository(cache_folder(fetching.environment), REPO).partial_bytes > 0
    assert find(SOURCE, None, fetching) is None


def test_what_is_not_as_described_is_thrown_away(hub: Hub, fetching: Fetching) -> None:
    """Large files by sha256, small ones by git's own digest; the file is named."""
    hub.files.update(MODEL)
    hub.lie = True
    with pytest.raises(PreflightFailed, match=r"config\.json") as caught:
        resolve(SOURCE, None, fetching)

    assert caught.value.kind == "corrupt"
    assert Repository(cache_folder(fetching.environment), REPO).partial_bytes == 0
    assert find(SOURCE, None, fetching) is None


def test_a_file_that_shrank_in_the_cache_is_fetched_again(hub: Hub, fetching: Fetching) -> None:
    """Its size is not what the hub says."""
    hub.files.update({"m.gguf": b"x" * 1000})
    path = resolve(SOURCE, None, fetching)
    with path.open("r+b") as file:
        file.truncate(10)

    assert resolve(SOURCE, None, fetching).read_bytes() == hub.files["m.gguf"]


def test_names_that_lead_out_of_the_cache_are_not_followed(
    hub: Hub, fetching: Fetching, tmp_path: Path
) -> None:
    """A repository can be anybody's."""
    hub.files.update({"../../../evil.gguf": b"x", "/evil.gguf": b"x", "m.gguf": b"good"})

    assert resolve(SOURCE, None, fetching).read_bytes() == b"good"
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(("status", "match"), [(403, "gated"), (401, "gated"), (410, "410")])
def test_what_the_hub_does_not_give_is_said(
    hub: Hub, fetching: Fetching, status: int, match: str
) -> None:
    """At once: trying again would not help."""
    hub.files.update({"m.gguf": b"x" * 1000})
    hub.deny = status
    with pytest.raises(PreflightFailed, match=match) as caught:
        resolve(SOURCE, None, fetching)

    assert caught.value.kind == "not_found"
    assert len(hub.fetched) == 1


def test_room_on_the_disk_is_looked_at_first(hub: Hub, fetching: Fetching) -> None:
    """More than the disk can ever have; nothing is asked for."""
    hub.files.update({"m.gguf": b"x" * 1000})
    hub.claim = shutil.disk_usage("/").total * 2

    assert kind_of(SOURCE, None, fetching) == "no_space"
    assert hub.fetched == []
