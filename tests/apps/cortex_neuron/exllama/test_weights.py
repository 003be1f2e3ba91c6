"""The files of a model folder: complete, and one with their index."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.weights import INDEX, read_weights
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model, write_tensors

MODEL = Model()
_files = st.sampled_from(["model.safetensors", "other.safetensors"]) | st.integers() | st.none()
_json = (
    st.none()
    | st.lists(_files)
    | st.fixed_dictionaries(
        {"weight_map": st.none() | st.dictionaries(st.sampled_from("ab"), _files) | st.text()}
    )
)


def truncate(folder: Path) -> None:
    """Cut the second of three files."""
    file = folder / "model-00002-of-00003.safetensors"
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 1)


def remove(folder: Path) -> None:
    """Remove a file that the others' names promise."""
    (folder / INDEX).unlink()
    (folder / "model-00002-of-00003.safetensors").unlink()


def remove_indexed(folder: Path) -> None:
    """Remove a file that only the index knows."""
    (folder / "model-00002-of-00003.safetensors").rename(folder / "two.safetensors")
    (folder / "model-00003-of-00003.safetensors").unlink()
    (folder / "model-00001-of-00003.safetensors").rename(folder / "one.safetensors")
    names = {"a": "one.safetensors", "b": "three.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


def misplace(folder: Path) -> None:
    """Have the index put a tensor into another file."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "model-00002-of-00003.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def repeat(folder: Path) -> None:
    """Add another copy of the weights, in one file."""
    write_tensors(folder / "zz.safetensors", MODEL.tensors)


def scribble(folder: Path) -> None:
    """Have the header claim 100 GB."""
    with (folder / "model-00001-of-00003.safetensors").open("r+b") as opened:
        opened.write((100 << 30).to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("spoil", "kind", "file"),
    [
        (truncate, "corrupt", "model-00002-of-00003.safetensors"),
        (remove, "not_found", "model-00002-of-00003.safetensors"),
        (remove_indexed, "not_found", "three.safetensors"),
        (misplace, "corrupt", INDEX),
        (repeat, "corrupt", "zz.safetensors"),
        (scribble, "corrupt", "model-00001-of-00003.safetensors"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], kind: str, file: str
) -> None:
    """By its file, in the sentence and beside it, and once."""
    spoil(write_model(tmp_path / "model", MODEL, shards=3))
    (problem,) = read_weights(tmp_path / "model").problems

    assert (problem.kind, problem.extra["file"]) == (kind, file)
    assert file in problem.message


def test_a_truncated_file_says_what_is_there(tmp_path: Path) -> None:
    """So that an operator sees a broken download for what it is."""
    truncate(write_model(tmp_path / "model", MODEL, shards=3))
    (problem,) = read_weights(tmp_path / "model").problems

    assert problem.extra["expected_bytes"] == problem.extra["actual_bytes"] + 1


def test_all_that_is_wrong_is_found(tmp_path: Path) -> None:
    """Not only the first thing."""
    folder = write_model(tmp_path / "model", MODEL, shards=3)
    truncate(folder)
    scribble(folder)

    assert len(read_weights(folder).problems) == 2


@pytest.mark.parametrize("shards", [1, 3])
def test_sound_files_are_summed(tmp_path: Path, shards: int) -> None:
    """Every tensor of every file, and the size of the files."""
    folder = write_model(tmp_path / "model", MODEL, shards=shards)
    found = read_weights(folder)

    assert found.problems == ()
    assert found.tensors.keys() == MODEL.tensors.keys()
    assert found.file_bytes == sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def test_an_index_from_before_the_quantisation_is_passed_over(tmp_path: Path) -> None:
    """Whoever quantises a model copies its other files along; exllamav2 reads no index."""
    folder = write_model(tmp_path / "model", replace(MODEL, stored="exl2"))
    stale = {"lm_head.weight": "model-00001-of-00007.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": stale}))

    assert read_weights(folder).problems == ()


def test_a_name_that_claims_99999_shards_is_one_of_few_sentences(tmp_path: Path) -> None:
    """As many as there are files and one more."""
    write_tensors(tmp_path / "model-00001-of-99999.safetensors", MODEL.tensors)

    assert len(read_weights(tmp_path).problems) == 1


def test_no_folder_and_no_weights(tmp_path: Path) -> None:
    """Both are not found; the first is no folder to say more about."""
    (problem,) = read_weights(tmp_path).problems
    with pytest.raises(PreflightFailed) as caught:
        read_weights(tmp_path / "nowhere")

    assert (problem.kind, caught.value.kind) == ("not_found", "not_found")


@given(
    content=st.binary(max_size=200)
    | st.builds(
        lambda length, header, data: length.to_bytes(8, "little") + header + data,
        st.integers(0, 2**64 - 1) | st.integers(0, 80),
        st.binary(max_size=60),
        st.binary(max_size=20),
    )
)
def test_no_file_brings_anything_down(content: bytes) -> None:
    """Whatever its bytes are, it is read or it is a problem with its name."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.safetensors").write_bytes(content)
        for problem in read_weights(Path(folder)).problems:
            assert problem.extra["file"] == "model.safetensors"


@given(index=st.binary(max_size=60) | st.builds(lambda value: json.dumps(value).encode(), _json))
def test_no_index_brings_anything_down(index: bytes) -> None:
    """It is followed, passed over, or told as what it is."""
    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder, "model.safetensors"), {"a": ("F16", (1,))})
        Path(folder, INDEX).write_bytes(index)
        for problem in read_weights(Path(folder)).problems:
            assert problem.extra["file"] in (INDEX, "other.safetensors")
