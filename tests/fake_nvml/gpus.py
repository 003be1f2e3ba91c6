"""A machine with GPUs that exist in a text file, seen through the real NVML bindings.

The library is compiled once a session. A test writes the file while daemons or its own process
look; what it writes there is what the next look finds.
"""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pynvml
import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")

RTX_3090 = {
    "name": "NVIDIA GeForce RTX 3090",
    "uuid": "GPU-11111111-2222-3333-4444-555555555555",
    "total": 24576,
    "used": 1024,
    "cc": "8.6",
    "util": 37,
    "temp": 61,
    "power_mw": 210000,
}
H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-66666666-7777-8888-9999-aaaaaaaaaaaa",
    "total": 81559,
    "used": 3,
    "cc": "9.0",
    "util": 0,
    "temp": 40,
    "ecc": 1,
    "ecc_errors": 2,
    "mig": 0,
}


def compiled(folder: Path) -> Path:
    """Return a folder with the fake library in it; without a C compiler on Linux the test skips."""
    if sys.platform != "linux":
        pytest.skip("the library of the NVIDIA driver is faked on Linux only")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("NO C COMPILER: nothing that has to do with GPUs is tested here; install gcc")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
    command += ["-Wl,-soname,libnvidia-ml.so.1", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    return folder


class Gpus:
    """The machine: its values as text, `gpu0.used` and the like."""

    def __init__(self, path: Path, library: Path) -> None:
        self.path = path
        self.library = library
        self._values: dict[str, object] = {}
        self._more: list[str] = []
        self.claims = path.with_name(f"{path.name}.claims")
        self.claims.mkdir()
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to be on this machine."""
        return {"FAKE_NVML_STATE": str(self.path), "LD_LIBRARY_PATH": str(self.library)}

    def plug(self, number: int, what: Mapping[str, object], **more: object) -> None:
        """Put a GPU in."""
        self.set(**{f"gpu{number}.{key}": value for key, value in {**what, **more}.items()})

    def set(self, **values: object) -> None:
        """Change values; None takes one away."""
        self._values |= values
        self._write()

    def add(self, line: str) -> None:
        """Add a line of a key that may be repeated, such as `gpu0.xid=79`."""
        self._more.append(line)
        self._write()

    def _write(self) -> None:
        lines = [f"{key}={value}" for key, value in self._values.items() if value is not None]
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in [*lines, *self._more]))
        fresh.replace(self.path)


@contextmanager
def in_this_process(gpus: Gpus, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the bindings of this process see the machine; a real driver's stay out of it."""
    patch.setenv("FAKE_NVML_STATE", str(gpus.path))
    patch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(gpus.library / "libnvidia-ml.so.1")))
    patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    yield
    with suppress(pynvml.NVMLError):
        while True:
            pynvml.nvmlShutdown()
