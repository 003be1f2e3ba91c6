"""The child process that runs one GGUF model: `python -m cortex_neuron.llamacpp.engine`.

It imports little: each model pays for what is loaded here. The rules it keeps are those of
`cortex_neuron.engine_process`.
"""

import http.client
import json
import os
import signal
from typing import Any, TypeAlias

from cortex_neuron.engine_child import (
    die_with_parent,
    leave_with_stdin,
    read_task,
    say,
    take_stdout,
)

_Untyped: TypeAlias = Any
"""What xllamacpp and JSON give: it has no types to check."""

_SPARE_HTTP_THREADS = 8
_ERRORS = 1


def main() -> None:
    """Load the model that stdin names, say so, and serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    events = take_stdout()
    if (task := read_task()) is None:
        return
    watcher = leave_with_stdin()
    try:
        server = _program(task) if task["program"] else _bindings(task)
        answer = _about(server.listening_address, task)
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        say(events, {"event": "failed", "error": str(error)})
        os._exit(1)
    say(events, {"event": "ready", **answer})
    if task["program"]:
        server.end_with_it()
    watcher.join()
    del server


def _bindings(task: dict[str, Any]) -> _Untyped:
    """Load in this thread; return the server, which answers from threads of its own."""
    import xllamacpp  # noqa: PLC0415 - a failed import is told

    return xllamacpp.Server(_parameters(xllamacpp, task))


def _program(task: dict[str, Any]) -> _Untyped:
    """Load in a program below this process."""
    from cortex_neuron.llamacpp.program import Program  # noqa: PLC0415 - only where it is needed

    return Program(task)


def _about(url: str, task: dict[str, Any]) -> dict[str, Any]:
    """Return what there is to say of a server that is ready."""
    slots = _get(url, "/slots", task["secret"])
    return {
        "url": url,
        "slots": len(slots),
        "context": slots[0]["n_ctx"],
        "knows_tools": _knows_tools(_get(url, "/props", task["secret"])),
    }


def _knows_tools(properties: dict[str, Any]) -> bool:
    """Whether the model's chat template has a place for tools, or for calls at least."""
    able = properties.get("chat_template_caps", {})
    return bool(able.get("supports_tools") or able.get("supports_tool_calls"))


def _parameters(xllamacpp: _Untyped, task: dict[str, Any]) -> _Untyped:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = task["path"]
    parameters.model_alias = {task["model_id"]}
    parameters.n_ctx = task["cells"]
    parameters.n_parallel = task["parallel"]
    parameters.kv_unified = task["unified"]
    parameters.n_batch = task["batch"]
    parameters.n_ubatch = min(task["ubatch"], task["batch"])
    parameters.n_gpu_layers = task["gpu_layers"]
    parameters.cpuparams.n_threads = task["threads"]
    parameters.cpuparams_batch.n_threads = task["threads"]
    parameters.cache_type_k = _enumerated(xllamacpp.ggml_type, "GGML_TYPE_", task["cache_type_k"])
    parameters.cache_type_v = _enumerated(xllamacpp.ggml_type, "GGML_TYPE_", task["cache_type_v"])
    parameters.cache_ram_mib = task["prompt_cache_mb"]
    parameters.warmup = task["warmup"]
    # Weights in another order suit some CPUs better, and are a copy of all of them.
    parameters.no_extra_bufts = not task["reorder"]
    # What was asked for is what runs: llama.cpp must not shrink the context to what it finds free.
    parameters.fit_params = False
    parameters.embedding = task["embedding"]
    if task["pooling"]:
        kinds = xllamacpp.llama_pooling_type
        parameters.pooling_type = _enumerated(kinds, "LLAMA_POOLING_TYPE_", task["pooling"])
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [task["secret"]]
    parameters.cors_origins = ""
    parameters.n_threads_http = task["parallel"] + _SPARE_HTTP_THREADS
    parameters.endpoint_slots = True
    parameters.ui = False
    parameters.sse_ping_interval = -1
    # Some warnings come with every request, and would fill the log.
    parameters.verbosity = _ERRORS
    return parameters


def _enumerated(kinds: _Untyped, prefix: str, word: str) -> _Untyped:
    """Return the member of `kinds` for `word`, however its name is cased (`F16`, `Q8_0`)."""
    return next(kind for kind in kinds if kind.name.lower() == f"{prefix}{word}".lower())


def _get(url: str, path: str, secret: str) -> _Untyped:
    host, _, port = url.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {secret}"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


if __name__ == "__main__":
    main()
