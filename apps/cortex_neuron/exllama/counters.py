"""Count a prompt's tokens exactly, with the model's own template and vocabulary, unloaded."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orjson import JSONDecodeError, dumps, loads

from cortex_core.errors import UpstreamMalformed, UpstreamUnreachable
from cortex_neuron.engine_process import (
    EngineFailed,
    EngineProcess,
    child_environment,
    device_environment,
    python_module,
)
from cortex_neuron.exllama.refusals import explain, refusal
from cortex_neuron.exllama.sockets import SocketFolder
from cortex_neuron.lending import Lending, Lost
from cortex_uplink import Uplink, UplinkError

_START_SECS: Final = 120.0
_MOST_BYTES: Final = 1 << 20
_REQUEST_MAX_MB: Final = 1024
#: Where a text to be counted may stand.
_TEXTS: Final = ("prompt", "input", "content")


@dataclass(frozen=True, slots=True)
class _Counter:
    """A process, and where it answers."""

    process: EngineProcess
    folder: SocketFolder

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.alive

    async def stop(self, timeout_secs: float) -> None:
        """End it, by force after `timeout_secs`."""
        await self.process.stop(timeout_secs)
        self.folder.remove()


class Counters:
    """The counting processes of one node."""

    def __init__(
        self,
        uplink: Uplink,
        *,
        limit: int = 2,
        idle_secs: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._uplink = uplink
        self._lending: Lending[_Counter] = Lending(limit, idle_secs)
        self._environment = dict(os.environ if environment is None else environment)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run now."""
        return self._lending.pids

    async def count(self, path: Path, model_id: str, request: Mapping[str, Any]) -> int:
        """Return the prompt tokens of a chat, or of text as `prompt`, `input` or `content`.

        Raises InvalidRequest for what cannot be counted, PreflightFailed for files that cannot be
        read, and EngineStartFailed.
        """
        body = dumps({"model": model_id, **_question(request)})
        try:
            return await self._count(path, model_id, body)
        except Lost:
            pass  # It died while it was idle, and nobody had noticed: once more with a new one.
        try:
            return await self._count(path, model_id, body)
        except Lost as error:
            raise UpstreamUnreachable("the model's tokenizer went away; try again") from error

    async def aclose(self) -> None:
        """Stop every process."""
        await self._lending.aclose()

    async def _count(self, path: Path, model_id: str, body: bytes) -> int:
        async with self._lending.borrowed(path, lambda: self._start(path, model_id)) as lent:
            headers = {"content-type": "application/json"}
            try:
                async with self._uplink.open(
                    f"{lent.folder.url}/tokenize", body=body, headers=headers
                ) as found:
                    status, raw = found.status, await found.read(_MOST_BYTES)
            except UplinkError as error:
                raise Lost from error
        try:
            said = loads(raw)
        except JSONDecodeError as error:
            raise UpstreamMalformed("the model's tokenizer answered nonsense") from error
        if status != 200:  # noqa: PLR2004
            raise refusal(status, said)
        count = said.get("count") if isinstance(said, dict) else None
        if not isinstance(count, int):
            raise UpstreamMalformed("the model's tokenizer answered nonsense")
        return count

    async def _start(self, path: Path, model_id: str) -> _Counter:
        folder = SocketFolder()
        try:
            process = await EngineProcess.start(
                python_module("cortex_neuron.exllama.counter"),
                {
                    "parent_pid": os.getpid(),
                    "path": str(path),
                    "socket": str(folder.socket),
                    "request_max_mb": _REQUEST_MAX_MB,
                },
                title=f"{model_id} (tokenizer)",
                environment=child_environment(self._environment, device_environment(())),
                timeout_secs=_START_SECS,
            )
        except EngineFailed as error:
            folder.remove()
            raise explain(error) from error
        except BaseException:
            folder.remove()
            raise
        return _Counter(process, folder)


def _question(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is to be counted, in the words of a completion."""
    if "messages" in request:
        return request
    return {"prompt": next((request[name] for name in _TEXTS if name in request), None)}
