"""What an operator can set, for both daemons: frozen, bounded, with the unit in the name."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cortex_core.address import MAX_PORT
from cortex_core.address import Address as Address  # noqa: PLC0414  # settings are made of it
from cortex_core.commands import KEY_FILE_VARIABLE
from cortex_core.loading import ConfigError, overlay_environment, read_toml, validate
from cortex_core.wire import LoadRequest, ModelId

_Settings = TypeVar("_Settings", bound=BaseModel)


def _check_address(text: str) -> str:
    try:
        Address.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}; give an 'ip:port' such as '127.0.0.1:31313'") from error
    return text


def _from_here(path: Path, info: ValidationInfo) -> Path:
    """Resolve a relative path against the file that names it, not the working directory."""
    base: Path | None = (info.context or {}).get("base")
    expanded = path.expanduser()
    return expanded if expanded.is_absolute() or base is None else (base / expanded).resolve()


def _check_choice(text: str) -> str:
    if ":" not in text and text not in _BUILT_IN:
        raise ValueError(
            f"must be one of {', '.join(_BUILT_IN)}, or an object of yours as 'package.module:Name'"
        )
    return text


#: The router's own choices, by name; which of them belongs where is checked when it is used.
_BUILT_IN = ("least_pressure", "lru", "priority", "cost")
BuiltInOrObject = Annotated[str, AfterValidator(_check_choice)]
ListenAddress = Annotated[str, AfterValidator(_check_address)]
LocalPath = Annotated[Path, AfterValidator(_from_here)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
#: How the cache of an exllama engine is kept: in 16 bits, or quantised.
CacheMode = Literal["FP16", "Q8", "Q6", "Q4"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewaySettings(_Table):
    """`[gateway]`: where cortex listens and how much it takes in."""

    listen: ListenAddress = "127.0.0.1:31313"
    metrics_listen: ListenAddress = "127.0.0.1:31314"
    workers: Literal[1] = Field(default=1, description="Processes on the port.")
    request_max_mb: int = Field(default=64, ge=1, le=1024)


class EvictionSettings(_Table):
    """`[eviction]`: who leaves when a model needs room."""

    strategy: BuiltInOrObject = Field(default="lru", description="lru, priority, cost, or yours.")
    defrag_after_cycles: int = Field(default=50, ge=0, description="0 turns it off.")
    min_residency_secs: float = Field(default=0, ge=0)


class RoutingSettings(_Table):
    """`[routing]`: how a replica is chosen."""

    policy: BuiltInOrObject = Field(default="least_pressure", description="Or your own object.")
    affinity: bool = Field(default=True, description="A conversation stays where its cache is.")
    replicate: bool = Field(default=True, description="One more copy where there is free room.")


class TimeoutSettings(_Table):
    """`[timeouts]`: no total timeout exists, because a long answer is not a failure."""

    connect: Seconds = 3.0
    first_byte: Seconds = Field(default=600.0, description="Longest wait for the first token.")
    idle: Seconds = Field(default=120.0, description="Longest silence inside an answer.")
    load: Seconds = Field(default=1800.0, description="Longest cold load.")
    hold: Seconds = Field(default=60.0, description="Longest wait for room or for a node.")
    hold_headers_secs: Seconds = Field(default=2.0, description="Then the stream opens.")
    drain: Seconds = Field(default=30.0, description="Longest wait for answers on shutdown.")


class ObservationSettings(_Table):
    """`[observation]`: how nodes are watched."""

    poll_secs: Seconds = 10.0
    timeout_secs: Seconds = 5.0
    misses: int = Field(default=3, ge=1, description="Missed polls before a node is unhealthy.")


class NeuronEntry(_Table):
    """`[[neurons]]`: one node."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    endpoint: str = Field(pattern=r"^https?://[^/\s]+/?$")
    token_file: LocalPath | None = None

    @field_validator("endpoint")
    @classmethod
    def _without_slash(cls, endpoint: str) -> str:
        return endpoint.rstrip("/")


class AccessSettings(_Table):
    """`[access]`: who may ask. Without a file of keys, everybody who reaches cortex."""

    keys_file: LocalPath | None = Field(default=None, description="Of `cortex keys`.")
    insecure: bool = Field(default=False, description="Listen beyond loopback without keys.")


class TlsSettings(_Table):
    """`[tls]`: what a daemon proves with who it is. Without it, it speaks plain HTTP."""

    cert_file: LocalPath | None = Field(default=None, description="With its chain, in PEM.")
    key_file: LocalPath | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class GatewayTlsSettings(TlsSettings):
    """`[tls]` of cortex, which also checks who the nodes are."""

    ca_file: LocalPath | None = Field(
        default=None, description="Nodes' certificates are checked by these, not the system's."
    )


class CortexSettings(_Table):
    """`cortex.toml`."""

    gateway: GatewaySettings = GatewaySettings()
    access: AccessSettings = AccessSettings()
    tls: GatewayTlsSettings = GatewayTlsSettings()
    eviction: EvictionSettings = EvictionSettings()
    routing: RoutingSettings = RoutingSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    observation: ObservationSettings = ObservationSettings()
    neurons: tuple[NeuronEntry, ...] = ()
    models_config: LocalPath = Path("models.toml")

    @field_validator("neurons")
    @classmethod
    def _distinct_names(cls, neurons: tuple[NeuronEntry, ...]) -> tuple[NeuronEntry, ...]:
        names = [entry.name for entry in neurons]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two neurons share the name {twice[0]!r}; give each its own")
        return neurons


class AdmissionSettings(_Table):
    """`[admission]`: how many requests a model takes. `max_in_flight` None asks the engine."""

    max_in_flight: int | None = Field(default=None, ge=1)
    max_queue_depth: int = Field(default=64, ge=0)
    max_wait_secs: Seconds = 120.0


class SwappingSettings(_Table):
    """`[swapping]`: who makes way, and when, while more models are wanted than fit."""

    strategy: BuiltInOrObject = "lru"
    amortise: float = Field(
        default=1.0, ge=0, description="A model stays so many times as long as its load took."
    )
    linger_secs: float = Field(default=2.0, ge=0, description="Unless it is idle for so long.")
    min_residency_secs: float = Field(default=0.0, ge=0, description="It stays so long anyway.")


class DevicesSettings(_Table):
    """`[devices]`: on a machine without a GPU, the part of its memory that models may fill."""

    cpu_memory_share: float = Field(default=0.5, gt=0, le=0.95)


class LlamaCppSettings(_Table):
    """`[harness.llamacpp]`: defaults of every GGUF engine; a model's `options` override them."""

    context: int = Field(default=8192, ge=128, description="Longest context, in tokens.")
    parallel: int = Field(default=2, ge=1, le=256, description="Requests decoded together.")
    threads: int | None = Field(default=None, ge=1, description="None: all cores but one.")
    start_timeout_secs: Seconds = 600.0


class ExllamaSettings(_Table):
    """`[harness.exllamav2]`, `[harness.exllamav3]`: defaults; a model's `options` override them."""

    context: int | None = Field(
        default=None, ge=256, description="Tokens of one request. None: what the devices can hold."
    )
    cache_mode: CacheMode = "FP16"
    parallel: int = Field(default=8, ge=1, le=256, description="Answers generated together.")
    chunk: int = Field(default=2048, ge=256, le=32768, description="Prompt tokens read at once.")
    max_waiting: int = Field(default=64, ge=0, description="Answers that wait inside the engine.")
    start_timeout_secs: Seconds = 1800.0


class OpenAiServer(_Table):
    """`[[harness.openai.servers]]`: one that is there already, and speaks OpenAI."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    url: str = Field(pattern=r"^https?://[^/\s]+(/[^\s]*)?$", description="Without `/v1`.")
    token_file: LocalPath | None = None
    capabilities: tuple[str, ...] = ("chat", "completion")
    max_in_flight: int = Field(default=256, ge=1, description="Requests sent to it at a time.")

    @field_validator("url")
    @classmethod
    def _without_route(cls, url: str) -> str:
        return url.rstrip("/").removesuffix("/v1").rstrip("/")


class OpenAiSettings(_Table):
    """`[harness.openai]`: servers whose models this node offers as its own."""

    servers: tuple[OpenAiServer, ...] = ()
    look_secs: Seconds = Field(default=2.0, description="They are looked at this often.")

    @field_validator("servers")
    @classmethod
    def _distinct_names(cls, servers: tuple[OpenAiServer, ...]) -> tuple[OpenAiServer, ...]:
        names = [server.name for server in servers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two servers share the name {twice[0]!r}; give each its own")
        return servers


class HarnessSettings(_Table):
    """`[harness.*]`."""

    llamacpp: LlamaCppSettings = LlamaCppSettings()
    exllamav2: ExllamaSettings = ExllamaSettings()
    exllamav3: ExllamaSettings = ExllamaSettings()
    openai: OpenAiSettings = OpenAiSettings()


class NeuronTimeouts(_Table):
    """`[timeouts]` of a neuron: towards its engines, and while it leaves."""

    first_byte: Seconds = 600.0
    idle: Seconds = 120.0
    drain: Seconds = 30.0
    unload: Seconds = Field(default=20.0, description="Longest wait for one engine to end.")
    hang: Seconds = Field(default=20.0, description="Longest that a busy engine may play dead.")


class NeuronSettings(_Table):
    """`neuron.toml`."""

    host: str = "127.0.0.1"
    port: int = Field(default=13131, ge=0, le=MAX_PORT)
    token_file: LocalPath | None = Field(
        default=None, description="Only who sends one of its tokens is obeyed; one a line."
    )
    insecure: bool = Field(default=False, description="Listen beyond loopback without a token.")
    tls: TlsSettings = TlsSettings()
    harnesses: tuple[Literal["llamacpp", "exllamav2", "exllamav3"], ...] = (
        "llamacpp",
        "exllamav2",
        "exllamav3",
    )
    model_dirs: tuple[LocalPath, ...] = ()
    cache_dir: LocalPath | None = None
    default_models: tuple[LoadRequest, ...] = ()
    request_max_mb: int = Field(default=64, ge=1, le=1024)
    devices: DevicesSettings = DevicesSettings()
    admission: AdmissionSettings = AdmissionSettings()
    swapping: SwappingSettings = SwappingSettings()
    timeouts: NeuronTimeouts = NeuronTimeouts()
    harness: HarnessSettings = HarnessSettings()

    @field_validator("host")
    @classmethod
    def _is_address(cls, host: str) -> str:
        ipaddress.ip_address(host)
        return host

    def resolved_cache_dir(self, environment: Mapping[str, str]) -> Path:
        """Return where fetched models are kept: `cache_dir`, else the user's cache folder."""
        if self.cache_dir is not None:
            return self.cache_dir
        base = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
        return Path(base) / "cortex" / "models"


class ModelLimit(_Table):
    """Tokens a model takes and gives, where the operator knows better than the files."""

    context: int | None = Field(default=None, ge=1)
    input: int | None = Field(default=None, ge=1)
    output: int | None = Field(default=None, ge=1)


class ModelEntry(_Table):
    """`[[models]]`: how one model is loaded and where it may live."""

    id: ModelId
    harness: str | None = Field(default=None, description="None: what the files need.")
    source: str | None = None
    quant: str | None = None
    vram_mb: int | None = Field(default=None, gt=0, description="Whole model; unknown if absent.")
    min_devices: int = Field(default=1, ge=1)
    min_device_vram_mb: int | None = Field(default=None, gt=0)
    pinned_on: tuple[str, ...] = ()
    preferred_on: tuple[str, ...] = ()
    excluded_from: tuple[str, ...] = ()
    apart_from: tuple[ModelId, ...] = ()
    residency_priority: int | None = Field(default=None, ge=0)
    keep_alive_secs: float | None = Field(default=None, gt=0)
    capabilities: tuple[str, ...] = ()
    limit: ModelLimit | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class Catalogue(_Table):
    """`models.toml`."""

    models: tuple[ModelEntry, ...] = ()
    aliases: dict[ModelId, ModelId] = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _distinct_ids(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        ids = [entry.id for entry in models]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"the model {twice[0]!r} is listed twice; keep one of the entries")
        return models


def load_cortex_settings(path: Path | None, environment: Mapping[str, str]) -> CortexSettings:
    """Return the gateway's settings from `path` (None: defaults) and `CORTEX_*` variables."""
    return _load(CortexSettings, path, environment, "CORTEX")


def load_neuron_settings(path: Path | None, environment: Mapping[str, str]) -> NeuronSettings:
    """Return a node's settings from `path` (None: defaults) and `NEURON_*` variables."""
    return _load(NeuronSettings, path, environment, "NEURON")


def load_catalogue(path: Path) -> Catalogue:
    """Return the catalogue. Raises ConfigError, also when an alias leads to another alias."""
    catalogue = validate(Catalogue, read_toml(path), where=str(path), base=path.parent.resolve())
    for alias, target in catalogue.aliases.items():
        if alias.count("*") > 1 or target.count("*") > alias.count("*"):
            raise ConfigError(
                f"{path}: aliases.{alias}: an alias has one '*' at most, and its model only then"
            )
        if target in catalogue.aliases:
            raise ConfigError(
                f"{path}: aliases.{alias}: leads to the alias {target!r}; name a model"
            )
        if any(entry.id == alias for entry in catalogue.models):
            raise ConfigError(f"{path}: aliases.{alias}: a model has this id; rename the alias")
    return catalogue


def _load(
    model: type[_Settings], path: Path | None, environment: Mapping[str, str], prefix: str
) -> _Settings:
    values = read_toml(path) if path else {}
    environment = {name: said for name, said in environment.items() if name != KEY_FILE_VARIABLE}
    base = path.parent.resolve() if path else Path.cwd()
    where = str(path) if path else f"{prefix}_* environment"
    return validate(model, overlay_environment(values, environment, prefix), where=where, base=base)
