"""What `cortex up` will run: ports, the configuration of both daemons, the first model.

Everything here happens before a process starts, so a mistake leaves nothing behind.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cortex_core.commands import Exit, Failure, bind_error
from cortex_core.loading import ConfigError
from cortex_core.settings import Catalogue, ModelEntry, load_catalogue

LOOPBACK: Final = "127.0.0.1"
SHIPPED_MODELS: Final = Path(__file__).with_name("models.toml")
DRAIN_SECS: Final = 10

# What the written files decide; a variable of the caller's environment must not move it away.
_OURS: Final = frozenset(
    {
        "CORTEX_GATEWAY__LISTEN",
        "CORTEX_GATEWAY__METRICS_LISTEN",
        "CORTEX_NEURONS",
        "CORTEX_MODELS_CONFIG",
        "NEURON_HOST",
        "NEURON_PORT",
        "NEURON_DEFAULT_MODELS",
    }
)


def _module(name: str) -> tuple[str, ...]:
    # -P: a file in the working directory must not be taken for one of our modules.
    return (sys.executable, "-P", "-m", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """How the two daemons are started; `serve -c FILE` is added."""

    neuron: tuple[str, ...] = field(default_factory=lambda: _module("cortex_neuron"))
    cortex: tuple[str, ...] = field(default_factory=lambda: _module("cortex_gateway"))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What was asked for. A port of 0 is any free one; `models` None is the shipped catalogue."""

    models: Path | None = None
    port: int = 31313
    metrics_port: int = 31314
    neuron_port: int = 13131
    preload: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will run: ports are settled, the catalogue is read, `first` is loaded at once."""

    port: int
    metrics_port: int
    neuron_port: int
    models: Path
    catalogue: Catalogue
    first: ModelEntry | None

    @property
    def api(self) -> str:
        """Return where cortex answers."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def metrics(self) -> str:
        """Return where the metrics are."""
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    @property
    def neuron(self) -> str:
        """Return where the neuron answers."""
        return f"http://{LOOPBACK}:{self.neuron_port}"


def make_plan(options: UpOptions) -> Plan:
    """Return the plan for `options`. Raises Failure for a bad catalogue or a busy port."""
    models = (options.models or SHIPPED_MODELS).absolute()
    try:
        catalogue = load_catalogue(models)
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error
    if not catalogue.models:
        raise Failure(f"{models}: lists no models; add a [[models]] entry", Exit.USAGE)
    port, metrics_port, neuron_port = _settle(
        ("--port", options.port),
        ("--metrics-port", options.metrics_port),
        ("--neuron-port", options.neuron_port),
    )
    return Plan(
        port=port,
        metrics_port=metrics_port,
        neuron_port=neuron_port,
        models=models,
        catalogue=catalogue,
        first=catalogue.models[0] if options.preload else None,
    )


def cortex_toml(plan: Plan) -> str:
    """Return the `cortex.toml` of this run."""
    return f"""\
models_config = {_toml(str(plan.models))}

[gateway]
listen = {_toml(f"{LOOPBACK}:{plan.port}")}
metrics_listen = {_toml(f"{LOOPBACK}:{plan.metrics_port}")}

[timeouts]
drain = {DRAIN_SECS}

[[neurons]]
name = "local"
endpoint = {_toml(plan.neuron)}
"""


def neuron_toml(plan: Plan) -> str:
    """Return the `neuron.toml` of this run; the first model becomes a default model."""
    head = f"""\
host = {_toml(LOOPBACK)}
port = {plan.neuron_port}
harnesses = ["llamacpp"]

[timeouts]
drain = {DRAIN_SECS}
"""
    if plan.first is None:
        return head
    said = plan.first.model_dump(
        include={"harness", "source", "quant", "vram_mb", "capabilities", "options"},
        exclude_defaults=True,
    )
    request = {"model_id": plan.first.id, **said}
    lines = "".join(f"{key} = {_toml(value)}\n" for key, value in request.items())
    return f"{head}\n[[default_models]]\n{lines}"


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the daemons: ours, with the same modules within reach.

    A wrapped program (as Nix makes them) has its libraries on `sys.path` only, which a child
    started through `sys.executable` would not know of.
    """
    kept = {name: value for name, value in environment.items() if name not in _OURS}
    return {**kept, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def try_it(plan: Plan) -> str:
    """Return a line for the shell that gets an answer from the first model of the catalogue."""
    model = plan.catalogue.models[0]
    path = "chat/completions"
    body: dict[str, Any] = {
        "model": model.id,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    if "embedding" in model.capabilities:
        path, body = "embeddings", {"model": model.id, "input": "hello"}
    # Single quotes end a shell string, and JSON has another way to write one.
    text = json.dumps(body).replace("'", "\\u0027")
    return f"curl {plan.api}/v1/{path} -H 'content-type: application/json' -d '{text}'"


def _settle(*wanted: tuple[str, int]) -> list[int]:
    """Return a distinct, free port for each option. Raises Failure for one that is taken."""
    chosen: list[int] = []
    for option, port in wanted:
        if port in chosen:
            raise Failure(f"{option} {port} is given twice; each needs its own", Exit.USAGE)
        if port and (error := bind_error(LOOPBACK, port)):
            raise Failure(
                f"{LOOPBACK}:{port} cannot be taken: {error.strerror}. See who has it: "
                f"ss -ltnp 'sport = :{port}'. Another one: {option} N (0: any free one)"
            )
        chosen.append(port or _free_port(chosen))
    return chosen


def _free_port(taken: list[int]) -> int:
    while True:
        with socket.create_server((LOOPBACK, 0)) as listener:
            port: int = listener.getsockname()[1]
        if port not in taken:
            return port


def _toml(value: object) -> str:
    """Return `value` as TOML. JSON strings, numbers and booleans are TOML as they stand."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
