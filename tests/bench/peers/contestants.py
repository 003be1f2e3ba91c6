"""The proxies that are compared: how each is started in front of the mock node, and how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from tests.bench.peers.checking import Wrong, check
from tests.bench.peers.packages import environment, program
from tests.bench.peers.payloads import MODEL, PACED
from tests.fleet.processes import NeverHappened, eventually, free_port, workbench
from tests.fleet.processes import environment as without_settings

VLLM_ROUTER = "0.1.17"
SGLANG_ROUTER = "0.3.2"
LITELLM = "1.106.12"

_START_SECS = 120.0
_END_SECS = 15.0

_NGINX = """\
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log; worker_processes 1;
events {{ worker_connections 8192; }}
http {{
  access_log {folder}/nginx-access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  upstream node {{ server 127.0.0.1:{mock}; keepalive 2048; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://node; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
_LITELLM = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{mock}/v1", api_key: none}}
  - model_name: {paced}
    litellm_params: {{model: openai/{paced}, api_base: "http://127.0.0.1:{mock}/v1", api_key: none}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A contestant that answers. Without `pid` it is the mock node itself, asked directly.

    A slow one gets longer rounds and fewer paced streams, or it would only ever be late.
    """

    name: str
    version: str
    port: int
    pid: int | None
    passes: str
    slow: bool = False


Start: TypeAlias = Callable[[int, Path], AbstractContextManager[Running]]


@contextmanager
def direct(mock: int, _folder: Path) -> Iterator[Running]:
    """Nothing in between."""
    yield Running(name="direct", version="", port=mock, pid=None, passes=check(mock))


@contextmanager
def nginx(mock: int, folder: Path) -> Iterator[Running]:
    """The floor: a proxy in C which reads nothing of what passes through."""
    path, port = program("nginx", "nginx-light"), free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, mock=mock, port=port))
    said = subprocess.run([path, "-v"], capture_output=True, text=True, check=True).stderr
    with _started([path, "-c", str(config)], port, folder / "nginx.log") as (pid, passes):
        number = said.strip().rpartition("/")[2]
        yield Running(name="nginx", version=number, port=port, pid=pid, passes=passes)


@contextmanager
def vllm_router(mock: int, folder: Path) -> Iterator[Running]:
    """The router of the vLLM project."""
    programs = environment("vllm-router", f"vllm-router=={VLLM_ROUTER}")
    argv = [str(programs / "vllm-router")]
    yield from _router("vllm-router", VLLM_ROUTER, argv, mock, folder)


@contextmanager
def sglang_router(mock: int, folder: Path) -> Iterator[Running]:
    """The router of the SGLang project."""
    programs = environment("sglang-router", f"sglang-router=={SGLANG_ROUTER}")
    argv = [str(programs / "python"), "-m", "sglang_router.launch_router"]
    yield from _router("sglang-router", SGLANG_ROUTER, argv, mock, folder)


@contextmanager
def litellm(mock: int, folder: Path) -> Iterator[Running]:
    """LiteLLM's proxy, with one worker."""
    programs, port = environment("litellm", f"litellm[proxy]=={LITELLM}"), free_port()
    config = folder / "litellm.yaml"
    config.write_text(_LITELLM.format(model=MODEL, paced=PACED, mock=mock))
    argv = [str(programs / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    log, environ = (
        folder / "litellm.log",
        {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            # It would not start without a key; checking none is the cheapest way it has.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "PATH": f"{programs}:{os.environ['PATH']}",
        },
    )
    with _started(argv, port, log, rebuilds=True, environ=environ) as (pid, passes):
        yield Running(name="LiteLLM", version=LITELLM, port=port, pid=pid, passes=passes, slow=True)


@contextmanager
def cortex(mock: int, folder: Path) -> Iterator[Running]:
    """This checkout, one worker, as it is configured out of the box."""
    models = [{"id": model, "source": f"bench/{model}"} for model in (MODEL, PACED)]
    with workbench(folder) as bench:
        daemon = bench.cortex({"n1": f"http://127.0.0.1:{mock}"}, models)
        port = int(daemon.url.rpartition(":")[2])
        yield Running(
            name="cortex",
            version=version("cortex"),
            port=port,
            pid=daemon.pid,
            passes=check(port),
        )


CONTESTANTS: dict[str, Start] = {
    "direct": direct,
    "nginx": nginx,
    "vllm-router": vllm_router,
    "sglang-router": sglang_router,
    "LiteLLM": litellm,
    "cortex": cortex,
}


def _router(name: str, number: str, argv: list[str], mock: int, folder: Path) -> Iterator[Running]:
    port, metrics = free_port(), free_port()
    argv = [*argv, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--worker-urls", f"http://127.0.0.1:{mock}", "--policy", "round_robin"]
    argv += ["--prometheus-port", str(metrics)]
    with _started(argv, port, folder / f"{name}.log") as (pid, passes):
        yield Running(name=name, version=number, port=port, pid=pid, passes=passes)


@contextmanager
def _started(
    argv: list[str],
    port: int,
    log: Path,
    *,
    rebuilds: bool = False,
    environ: dict[str, str] | None = None,
) -> Iterator[tuple[int, str]]:
    """Start a program and wait until it answers as it must; end it and all it started.

    Gives its process id and what it passes on. Raises Wrong when it never answers right.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**without_settings(), **(environ or {})},
            start_new_session=True,
        )
    last: list[str] = []

    def answers() -> str | None:
        if process.poll() is not None:
            raise Wrong(f"it ended at once: {_end_of(log)}")
        try:
            return check(port, rebuilds=rebuilds)
        except (OSError, Wrong) as error:
            last[:] = [str(error)]
            return None

    try:
        try:
            passes = eventually(answers, within=_START_SECS, every=0.2)
        except NeverHappened as error:
            raise Wrong(f"{last[0] if last else error}; {_end_of(log)}") from error
        assert passes is not None
        yield process.pid, passes
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its session, which is its own."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_SECS)
    with suppress(ProcessLookupError):  # it left nothing behind
        os.killpg(process.pid, signal.SIGKILL)


def _end_of(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-3:])[-400:]


@contextmanager
def mock_node(folder: Path) -> Iterator[int]:
    """Start the mock node; give its port."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.bench.peers.mock_node", str(port)]
    with _started(argv, port, folder / "mock.log"):
        yield port
