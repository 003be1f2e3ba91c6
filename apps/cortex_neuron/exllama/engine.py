"""The child process that runs one model: `python -m cortex_neuron.exllama.engine`.

Its task names the library, the plan, and the socket to serve on. It says how far it is while it
loads, then that it is ready and what it can hold; or why it failed. A device fault is told at once:
this process is of no use any more. The rules it keeps are those of `cortex_neuron.engine_process`.
"""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any, BinaryIO, Final

import structlog

from cortex_core.errors import PreflightFailed
from cortex_neuron.engine_child import (
    die_with_parent,
    leave_with_stdin,
    read_task,
    say,
    take_stdout,
)
from cortex_neuron.exllama.backend import Backend, Report
from cortex_neuron.exllama.engine_thread import EngineThread
from cortex_neuron.exllama.plan import Plan
from cortex_neuron.exllama.reading import Reader
from cortex_neuron.exllama.refusals import PREFLIGHT
from cortex_neuron.exllama.server import EngineApi
from cortex_neuron.exllama.sockets import listen
from cortex_uplink.lean_app import LeanApp, start_server
from cortex_uplink.logs import configure_logs

log = structlog.get_logger()

_FAULT_STATUS: Final = 70


def main() -> None:
    """Load the model that stdin names, say so, and serve until stdin ends or SIGTERM comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    events = take_stdout()
    if (task := read_task()) is None:
        return
    leave_with_stdin()
    configure_logs()
    plan = Plan.from_json(task["plan"])

    def report(done: int, total: int) -> None:
        say(events, {"event": "progress", "done": done, "total": total})

    engine = EngineThread(
        lambda: _backend(task["library"], plan, report), max_waiting=task["max_waiting"]
    )
    try:
        limits = engine.load()
        reader = Reader.from_folder(plan.folder, limits)
    except PreflightFailed as error:
        say(events, {"event": "failed", "error": f"{PREFLIGHT}{error.kind}: {error.message}"})
        os._exit(1)
    except BaseException as error:  # whatever it is, the daemon has to know
        log.exception("load.failed")
        say(events, {"event": "failed", "error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    app = EngineApi(engine=engine, reader=reader).app(request_max_mb=task["request_max_mb"])
    ready = {
        "event": "ready",
        "context": limits.context,
        "cache": limits.cache,
        "page": limits.page,
        "slots": limits.slots,
        "capabilities": reader.capabilities,
    }
    listener = listen(Path(task["socket"]))
    status = asyncio.run(_serve(app, engine, listener, events, ready))
    # Threads of the inference library may hang in a driver: nothing waits for them.
    os._exit(status)


def _backend(library: str, plan: Plan, report: Report) -> Backend:
    """Return the model, loaded by the library of that name: only here is it imported."""
    match library:
        case "exllamav2":
            from cortex_neuron.exllama.v2.backend import ExLlamaV2Backend  # noqa: PLC0415

            return ExLlamaV2Backend(plan, report)
        case "exllamav3":
            from cortex_neuron.exllama.v3.backend import ExLlamaV3Backend  # noqa: PLC0415

            return ExLlamaV3Backend(plan, report)
        case _:
            raise PreflightFailed("unsupported_format", f"no backend is called {library!r}")


async def _serve(
    app: LeanApp,
    engine: EngineThread,
    listener: socket.socket,
    events: BinaryIO,
    ready: dict[str, Any],
) -> int:
    """Serve until told to end, or until the device fails; return the exit status."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await start_server(app, listener, set())
    say(events, ready)
    waits = [asyncio.create_task(one.wait()) for one in (stop, engine.fault)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if engine.fault.is_set():
        say(events, {"event": "fault", "error": "the device failed; see the log"})
        return _FAULT_STATUS
    await engine.close()
    server.close()
    return 0


if __name__ == "__main__":
    main()
