"""Who can reach a daemon, and whether that is meant."""

from cortex_core.loading import ConfigError
from cortex_core.settings import Address, CortexSettings, NeuronSettings


def refuse_strangers(settings: CortexSettings | NeuronSettings) -> None:
    """Raise ConfigError when other machines may reach a daemon that obeys whoever asks."""
    if isinstance(settings, CortexSettings):
        gateway, access = settings.gateway, settings.access
        if access.keys_file is not None or access.insecure:
            return
        for key in ("listen", "metrics_listen"):
            if Address.parse(getattr(gateway, key)).is_public:
                raise ConfigError(
                    f"gateway.{key}: {getattr(gateway, key)} is reached from other machines, and "
                    "nobody is asked for a key. Make keys (`cortex keys create`) and name their "
                    "file as [access] keys_file; or, in a network you trust, set [access] "
                    "insecure = true"
                )
        return
    guarded = settings.token_file is not None or settings.insecure
    if not guarded and Address(settings.host, settings.port).is_public:
        raise ConfigError(
            f"host: {settings.host} is reached from other machines, and a neuron obeys whoever "
            "asks. Put a token into a file and name it as token_file, here and for this node in "
            "cortex.toml; or, in a network you trust, set insecure = true"
        )
