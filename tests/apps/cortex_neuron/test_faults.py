"""What an engine's last words and its way of dying are taken for."""

import pytest

from cortex_neuron.faults import Ending, Fault, ending_of, fault_in, is_poisoned


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "OUT_OF_MEMORY",
        ),
        ("CUDA error: out of memory", "OUT_OF_MEMORY"),
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
            "OUT_OF_MEMORY",
        ),
        ("llama_model_load: error loading model: unable to allocate CUDA0 buffer", "OUT_OF_MEMORY"),
        ("RuntimeError: Insufficient VRAM for model and cache", "OUT_OF_MEMORY"),
        ("AssertionError: Insufficient space in device allocation", "OUT_OF_MEMORY"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "OUT_OF_MEMORY"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", "OUT_OF_MEMORY"),
        ("RuntimeError: CUDA error: no CUDA-capable device is detected", "NO_DEVICE"),
        ("RuntimeError: Found no NVIDIA driver on your system.", "NO_DEVICE"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "DEVICE"),
        ("torch.AcceleratorError: CUDA error: device-side assert triggered", "DEVICE"),
        ("CUDA error: unspecified launch failure", "DEVICE"),
        ("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.", "DEVICE"),
    ],
)
def test_last_words_have_a_meaning(line: str, fault: str) -> None:
    """Running out of memory, having no device and losing one are three different things."""
    assert fault_in(["loading", line, "  in frame 3"]) is Fault[fault]


def test_the_last_telling_line_counts() -> None:
    """What was survived is not what ended it."""
    lines = ["CUDA out of memory, using less", "CUDA error: misaligned address"]

    assert fault_in(lines) is Fault.DEVICE
    assert fault_in(["all is well"]) is None


@pytest.mark.parametrize(
    ("code", "lines", "ending"),
    [
        (3, (), Ending(Fault.CRASHED, "the engine ended with status 3")),
        (-11, (), Ending(Fault.CRASHED, "the engine was killed by SIGSEGV")),
        (-200, (), Ending(Fault.CRASHED, "the engine was killed by signal 200")),
        (
            -6,
            ("CUDA error: an illegal instruction was encountered",),
            Ending(Fault.DEVICE, "the engine was killed by SIGABRT"),
        ),
        (
            -9,
            (),
            Ending(
                Fault.CRASHED, "the engine was killed by SIGKILL, perhaps because memory ran out"
            ),
        ),
    ],
)
def test_an_ending_is_what_it_left_and_what_it_said(
    code: int, lines: tuple[str, ...], ending: Ending
) -> None:
    """The status or signal gives the reason, the last words the fault."""
    assert ending_of(code, lines) == ending


@pytest.mark.parametrize(
    "line",
    [
        "CUDA error: an illegal memory access was encountered",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "torch.AcceleratorError: CUDA error: device-side assert triggered",
        "  what():  CUDA error: unspecified launch failure".lstrip(),
    ],
)
def test_a_living_engine_with_a_failed_device_is_poisoned(line: str) -> None:
    """CUDA answers nothing any more in that process."""
    assert is_poisoned(line)


@pytest.mark.parametrize(
    "line",
    [
        "CUDA error: out of memory",
        "torch.OutOfMemoryError: CUDA out of memory.",
        "prompt: what does CUDA error: an illegal memory access was encountered mean?",
        'INFO "CUDA error: an illegal memory access was encountered" was asked about',
        "0 CUDA errors",
    ],
)
def test_what_only_quotes_such_words_poisons_nothing(line: str) -> None:
    """Nor does running out of memory, which a process survives."""
    assert not is_poisoned(line)
