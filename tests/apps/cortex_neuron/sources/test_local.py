"""Models on this machine's disk."""

import json
from pathlib import Path

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources import (
    Fetching,
    FileSource,
    FolderSource,
    LocalModel,
    find,
    resolve,
    scan_model_dirs,
)


def lay(folder: Path, *names: str) -> None:
    """Write small files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


@pytest.fixture(name="fetching")
def _fetching(tmp_path: Path) -> Fetching:
    return Fetching(cache_dir=tmp_path / "cache", environment={})


def test_a_file_is_itself(tmp_path: Path, fetching: Fetching) -> None:
    """A file that is there needs nothing; a later shard stands for its first."""
    lay(tmp_path, "a.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf")

    assert resolve(FileSource(tmp_path / "a.gguf"), None, fetching) == tmp_path / "a.gguf"
    second = FileSource(tmp_path / "b-00002-of-00002.gguf")
    assert resolve(second, None, fetching).name == "b-00001-of-00002.gguf"


def test_a_missing_shard_is_not_found(tmp_path: Path, fetching: Fetching) -> None:
    """The sentence names the file that is missing."""
    lay(tmp_path, "b-00001-of-00002.gguf")

    with pytest.raises(PreflightFailed, match="00002-of-00002") as caught:
        resolve(FileSource(tmp_path / "b-00001-of-00002.gguf"), None, fetching)
    assert caught.value.kind == "not_found"


def test_a_folder_is_chosen_from_by_quant(tmp_path: Path, fetching: Fetching) -> None:
    """Its GGUF files are the choice."""
    lay(tmp_path, "m-Q4_0.gguf", "m-Q8_0.gguf", "notes.txt")

    assert resolve(FolderSource(tmp_path), "q8_0", fetching) == tmp_path / "m-Q8_0.gguf"
    with pytest.raises(PreflightFailed) as caught:
        resolve(FolderSource(tmp_path), None, fetching)
    assert caught.value.kind == "quant_not_found"


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path, fetching: Fetching) -> None:
    """With its path, because somebody wrote it wrong."""
    with pytest.raises(PreflightFailed, match="nowhere") as caught:
        resolve(FolderSource(tmp_path / "nowhere"), None, fetching)
    assert caught.value.kind == "not_found"


def test_finding_is_resolving_what_is_here(tmp_path: Path, fetching: Fetching) -> None:
    """What is missing is None; a quant that the folder lacks is somebody's mistake."""
    lay(tmp_path, "m-Q4_0.gguf", "m-Q8_0.gguf", "b-00001-of-00002.gguf")

    assert find(FolderSource(tmp_path), "q8_0", fetching) == tmp_path / "m-Q8_0.gguf"
    assert find(FileSource(tmp_path / "m-Q4_0.gguf"), None, fetching) == tmp_path / "m-Q4_0.gguf"
    assert find(FileSource(tmp_path / "b-00001-of-00002.gguf"), None, fetching) is None
    assert find(FolderSource(tmp_path / "nowhere"), None, fetching) is None
    with pytest.raises(PreflightFailed) as caught:
        find(FolderSource(tmp_path), "q5_0", fetching)
    assert caught.value.kind == "quant_not_found"


def test_a_scan_finds_models_and_only_models(tmp_path: Path) -> None:
    """Ids are paths without extension; shards count as one model, projectors as none."""
    lay(
        tmp_path,
        "a.gguf",
        "org/b-00001-of-00002.gguf",
        "org/b-00002-of-00002.gguf",
        "org/mmproj-b.gguf",
        "x.txt",
    )
    found = scan_model_dirs([tmp_path])

    size = len("org/b-00001-of-00002.gguf") * 2
    assert found.models == (
        LocalModel("a", tmp_path / "a.gguf", len("a.gguf")),
        LocalModel("org/b-00001-of-00002", tmp_path / "org/b-00001-of-00002.gguf", size),
    )
    assert found.problems == ()


def test_the_first_folder_wins_and_problems_are_told(tmp_path: Path) -> None:
    """The same id twice is one model; a folder or shard that is missing is a sentence."""
    lay(tmp_path, "one/a.gguf", "two/a.gguf", "two/c-00001-of-00002.gguf")
    found = scan_model_dirs([tmp_path / "one", tmp_path / "two", tmp_path / "none"])

    assert [model.path for model in found.models] == [tmp_path / "one/a.gguf"]
    assert len(found.problems) == 2


def lay_folder(folder: Path, bits: float) -> Path:
    """Write what looks like an EXL2 model."""
    lay(folder, "model.safetensors", "tokenizer.json")
    said = {"quantization_config": {"quant_method": "exl2", "bits": bits}}
    (folder / "config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("quant", [None, "4.0bpw", "4", "exl2"])
def test_a_folder_of_safetensors_is_a_model(
    tmp_path: Path, fetching: Fetching, quant: str | None
) -> None:
    """Of the quant that its config.json says."""
    folder = lay_folder(tmp_path / "model", 4.0)

    assert resolve(FolderSource(folder), quant, fetching) == folder


def test_a_folder_of_another_quant_is_not_taken_for_it(tmp_path: Path, fetching: Fetching) -> None:
    """Half a byte for a weight where a whole one was asked for."""
    folder = lay_folder(tmp_path / "model", 4.0)
    with pytest.raises(PreflightFailed) as caught:
        resolve(FolderSource(folder), "8.0bpw", fetching)

    assert caught.value.kind == "quant_not_found"


def test_a_folder_may_hold_one_model_for_each_quant(tmp_path: Path, fetching: Fetching) -> None:
    """By the folders' names, or by what their configs say; the nearest is named."""
    four, six = lay_folder(tmp_path / "4.0bpw", 4.0), lay_folder(tmp_path / "large", 6.5)

    assert resolve(FolderSource(tmp_path), "4bpw", fetching) == four
    assert resolve(FolderSource(tmp_path), "6.5bpw", fetching) == six
    with pytest.raises(PreflightFailed) as caught:
        resolve(FolderSource(tmp_path), "4.5bpw", fetching)
    with pytest.raises(PreflightFailed):
        resolve(FolderSource(tmp_path), None, fetching)
    assert (caught.value.kind, caught.value.extra["nearest"]) == ("quant_not_found", "4.0bpw")
