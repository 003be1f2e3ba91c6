"""The child process that counts a model's tokens: `python -m cortex_neuron.exllama.counter`.

It has the model's template and vocabulary and nothing of its weights, and no inference library. A
template of somebody's may take seconds: here it keeps nobody waiting but who asks for it. The rules
it keeps are those of `cortex_neuron.engine_process`.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, BinaryIO

from sanic import HTTPResponse, Request

from cortex_core.errors import PreflightFailed
from cortex_neuron.engine_child import (
    die_with_parent,
    leave_with_stdin,
    read_task,
    say,
    take_stdout,
)
from cortex_neuron.exllama.jobs import Limits
from cortex_neuron.exllama.reading import Reader
from cortex_neuron.exllama.refusals import PREFLIGHT
from cortex_neuron.exllama.sockets import listen
from cortex_uplink.envelopes import answer
from cortex_uplink.lean_app import start_server
from cortex_uplink.logs import configure_logs
from cortex_uplink.serving import make_app, read_inference

#: Prompts are counted, however long they are.
_NO_LIMITS = Limits(context=1 << 40, cache=1 << 40, page=1, slots=1)


def main() -> None:
    """Read the files that stdin names, say so, and count until stdin ends or SIGTERM comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    events = take_stdout()
    if (task := read_task()) is None:
        return
    leave_with_stdin()
    configure_logs()
    try:
        reader = Reader.from_folder(Path(task["path"]), _NO_LIMITS)
    except PreflightFailed as error:
        say(events, {"event": "failed", "error": f"{PREFLIGHT}{error.kind}: {error.message}"})
        os._exit(1)
    asyncio.run(_serve(reader, task, events))


async def _serve(reader: Reader, task: dict[str, Any], events: BinaryIO) -> None:
    app = make_app("counter", request_max_mb=task["request_max_mb"])

    async def count(request: Request) -> HTTPResponse:
        front = read_inference(request)
        counted = await asyncio.to_thread(reader.count, front.body)
        return answer({"count": counted})

    app.add_route(count, "/tokenize", methods=["POST"])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await start_server(app, listen(Path(task["socket"])), set())
    say(events, {"event": "ready"})
    await stop.wait()
    server.close()


if __name__ == "__main__":
    main()
