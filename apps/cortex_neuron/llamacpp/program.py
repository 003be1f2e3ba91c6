"""llama.cpp as a program of its own, for machines that have a `llama-server` and no bindings.

It runs below the engine's child process, which keeps the rules of `cortex_neuron.engine_process`
for it. Standard library only: each model pays for what is loaded here.
"""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NoReturn

from cortex_neuron.engine_child import die_with_parent

_LOOPBACK = "127.0.0.1"
#: More than any model has: older programs know no word for all of them.
_ALL_LAYERS = 999
_SPARE_HTTP_THREADS = 8
_WARNINGS = 2
_LOOK_SECS = 0.05


def find_program(environment: Mapping[str, str]) -> str | None:
    """Return the `llama-server` to run models with; None where the bindings are installed."""
    if find_spec("xllamacpp") is not None:
        return None
    return shutil.which("llama-server", path=environment.get("PATH"))


def arguments(task: Mapping[str, Any], port: int) -> list[str]:
    """Return the command line that runs `task` as the bindings would run it."""
    layers = task["gpu_layers"]
    said = {
        "--model": task["path"],
        "--alias": task["model_id"],
        "--host": _LOOPBACK,
        "--port": port,
        "--ctx-size": task["cells"],
        "--parallel": task["parallel"],
        "--batch-size": task["batch"],
        "--ubatch-size": min(task["ubatch"], task["batch"]),
        "--gpu-layers": _ALL_LAYERS if layers < 0 else layers,
        "--threads": task["threads"],
        "--threads-batch": task["threads"],
        "--threads-http": task["parallel"] + _SPARE_HTTP_THREADS,
        "--cache-type-k": task["cache_type_k"],
        "--cache-type-v": task["cache_type_v"],
        "--cache-ram": task["prompt_cache_mb"],
        # What was asked for is what runs: it must not shrink the context to what it finds free.
        "--fit": "off",
        "--log-verbosity": _WARNINGS,
    }
    if task["pooling"]:
        said["--pooling"] = task["pooling"]
    flags = {
        "--jinja": True,
        "--slots": True,
        "--offline": True,
        "--no-webui": True,
        "--kv-unified": task["unified"],
        "--embedding": task["embedding"],
        "--no-warmup": not task["warmup"],
        "--no-repack": not task["reorder"],
    }
    words = [word for name, value in said.items() for word in (name, str(value))]
    return [task["program"], *words, *(name for name, wanted in flags.items() if wanted)]


class Program:
    """A `llama-server` that is ready, with the face of the bindings' server.

    Raises RuntimeError when it ends before that, and OSError when it cannot be started.
    """

    def __init__(self, task: Mapping[str, Any]) -> None:
        port = _free_port()
        self.listening_address = f"http://{_LOOPBACK}:{port}"
        # The secret is not on the command line, which everybody on the machine may read. A program
        # too old to know the other variable sends no pings.
        said = {"LLAMA_API_KEY": task["secret"], "LLAMA_ARG_SSE_PING_INTERVAL": "-1"}
        self._process = subprocess.Popen(  # noqa: S603 - the operator's own program
            arguments(task, port),
            stdin=subprocess.DEVNULL,
            env={**os.environ, **said},
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it touches nothing of this process
        )
        while not _answers(port):
            if self._process.poll() is not None:
                raise RuntimeError(f"llama-server ended with status {self._process.returncode}")
            time.sleep(_LOOK_SECS)

    def end_with_it(self) -> NoReturn:
        """Wait until the program ends and end as it did, so that the daemon hears why."""
        code = self._process.wait()
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    """Whether the model is loaded: until then the program says 503, or nothing."""
    connection = http.client.HTTPConnection(_LOOPBACK, port, timeout=30)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
