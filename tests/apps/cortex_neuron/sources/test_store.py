"""What is kept, and how to be rid of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources import (
    Fetching,
    FolderSource,
    HuggingFaceSource,
    PypiSource,
    find,
    remove,
    resolve,
    stored,
)
from cortex_neuron.sources.hub_cache import Repository, cache_folder
from tests.apps.cortex_neuron.sources.hub_stand_in import REPO, Hub, commit_of, serving

SOURCE = HuggingFaceSource(repo=REPO)
WEIGHTS = b"w" * 2000
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}


@pytest.fixture(name="hub")
def _hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


@pytest.fixture(name="fetching")
def _fetching(tmp_path: Path, hub: Hub) -> Fetching:
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": hub.url}
    return Fetching(cache_dir=tmp_path / "cache", environment=environment)


def lay_wheel(fetching: Fetching) -> PypiSource:
    """Put a file there as a fetched wheel would."""
    folder = fetching.cache_dir / "pypi" / "tiny-model-1.0"
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    (folder / "tiny.gguf.wheel").write_text("0" * 64)
    return PypiSource(name="tiny_model", version="1.0", file="tiny.gguf")


def test_everything_that_is_kept_is_listed(hub: Hub, fetching: Fetching, tmp_path: Path) -> None:
    """Where it is, what it takes, and by which source it is asked for again."""
    hub.files.update({"m-Q4_0.gguf": b"4" * 300, "m-Q8_0.gguf": b"8" * 500})
    hub.branches["4.0bpw"] = dict(MODEL)
    resolve(SOURCE, "Q4_0", fetching)
    resolve(HuggingFaceSource(repo=REPO, revision="4.0bpw"), None, fetching)
    lay_wheel(fetching)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.gguf").write_bytes(b"GGUF!")
    found = {one.source: (one.size, one.fetched) for one in stored([tmp_path / "own"], fetching)}

    assert found == {
        str(tmp_path / "own" / "mine.gguf"): (5, False),
        f"hf:{REPO}/m-Q4_0.gguf": (300, True),
        f"hf:{REPO}@4.0bpw": (2004, True),
        "pypi:tiny-model==1.0/tiny.gguf": (4, True),
    }


def test_what_is_half_there_says_what_is_missing(hub: Hub, fetching: Fetching) -> None:
    """A shard that somebody deleted, and a download that has only begun."""
    shards = {f"model-0000{n}-of-00002.safetensors": WEIGHTS for n in (1, 2)}
    hub.files.update({"config.json": b"{}", **shards})
    folder = resolve(SOURCE, None, fetching)
    (folder / "model-00002-of-00002.safetensors").unlink()
    Repository(cache_folder(fetching.environment), REPO).partial("f" * 64).write_bytes(b"123")
    whole, begun = stored([], fetching)

    assert whole.missing == ("model-00002-of-00002.safetensors",)
    assert (begun.path, begun.size) == (None, 3)


def test_a_repository_is_removed_whole(hub: Hub, fetching: Fetching) -> None:
    """With what had only begun; and then it is not here."""
    hub.files.update(MODEL)
    resolve(SOURCE, None, fetching)
    freed = remove(SOURCE, None, fetching)

    assert freed >= 2000
    assert stored([], fetching) == ()
    with pytest.raises(PreflightFailed) as caught:
        remove(SOURCE, None, fetching)
    assert caught.value.kind == "not_found"


def test_one_of_several_is_removed_and_shared_contents_stay(hub: Hub, fetching: Fetching) -> None:
    """Two branches with the same tokenizer; the other branch is whole afterwards."""
    other = {**MODEL, "model.safetensors": b"o" * 700}
    hub.branches |= {"4.0bpw": dict(MODEL), "6.0bpw": other}
    for quant in ("4.0bpw", "6.0bpw"):
        resolve(SOURCE, quant, fetching)
    freed = remove(HuggingFaceSource(repo=REPO, revision="4.0bpw"), None, fetching)
    left = find(SOURCE, "6.0bpw", fetching)

    assert 2000 <= freed < 2100
    assert left is not None
    assert {path.name: path.read_bytes() for path in left.iterdir()} == other
    assert find(SOURCE, "4.0bpw", fetching) is None
    assert remove(SOURCE, "6.0bpw", fetching) >= 700
    assert stored([], fetching) == ()


def test_one_quant_of_a_snapshot_is_removed(hub: Hub, fetching: Fetching) -> None:
    """The other file of the same commit stays."""
    hub.files.update({"m-Q4_0.gguf": b"4" * 300, "m-Q8_0.gguf": b"8" * 500})
    for quant in ("Q4_0", "Q8_0"):
        resolve(SOURCE, quant, fetching)

    assert remove(SOURCE, "Q8_0", fetching) == 500
    assert find(SOURCE, "Q4_0", fetching) is not None
    assert find(HuggingFaceSource(repo=REPO, file="m-Q8_0.gguf"), None, fetching) is None
    with pytest.raises(PreflightFailed) as caught:
        remove(SOURCE, "Q2_K", fetching)
    assert caught.value.kind == "not_found"


def test_a_wheel_is_removed(fetching: Fetching) -> None:
    """The file and what it came from."""
    source = lay_wheel(fetching)

    assert remove(source, None, fetching) == 4
    assert find(source, None, fetching) is None
    with pytest.raises(PreflightFailed):
        remove(source, None, fetching)


def test_what_nobody_fetched_is_not_removed(fetching: Fetching, tmp_path: Path) -> None:
    """It may be the only copy."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PreflightFailed, match="yourself") as caught:
        remove(FolderSource(tmp_path), None, fetching)

    assert caught.value.kind == "bad_source"
    assert (tmp_path / "config.json").exists()


def test_a_commit_without_a_branch_is_its_own_name(hub: Hub, fetching: Fetching) -> None:
    """So that it can be asked for, and removed."""
    hub.files.update(MODEL)
    pinned = HuggingFaceSource(repo=REPO, revision=commit_of("main"))
    resolve(pinned, None, fetching)
    (only,) = stored([], fetching)

    assert only.source == f"hf:{REPO}@{commit_of('main')}"
    assert remove(pinned, None, fetching) >= 2000
