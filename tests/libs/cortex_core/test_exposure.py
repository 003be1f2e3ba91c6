"""Nobody obeys strangers from other machines unless the operator says so."""

from pathlib import Path

import pytest

from cortex_core.exposure import refuse_strangers
from cortex_core.loading import ConfigError
from cortex_core.settings import (
    AccessSettings,
    CortexSettings,
    GatewaySettings,
    NeuronSettings,
    load_cortex_settings,
)

PUBLIC = ["0.0.0.0", "[::]", "192.168.1.20", "[2001:db8::1]"]
LOCAL = ["127.0.0.1", "127.1.2.3", "[::1]"]


@pytest.mark.parametrize("key", ["listen", "metrics_listen"])
@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_gateway_has_keys_or_is_told_to_be_insecure(key: str, address: str) -> None:
    """On either of its addresses; the message names it and both ways out."""
    gateway = GatewaySettings.model_validate({key: f"{address}:1"})

    with pytest.raises(ConfigError, match=rf"gateway\.{key}: .*keys_file.*insecure"):
        refuse_strangers(CortexSettings(gateway=gateway))
    for access in (AccessSettings(insecure=True), AccessSettings(keys_file=Path("k"))):
        refuse_strangers(CortexSettings(gateway=gateway, access=access))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_node_has_a_token_or_is_told_to_be_insecure(address: str) -> None:
    """The same there."""
    host = address.strip("[]")

    with pytest.raises(ConfigError, match=r"host: .*token_file.*insecure"):
        refuse_strangers(NeuronSettings(host=host))
    refuse_strangers(NeuronSettings(host=host, insecure=True))
    refuse_strangers(NeuronSettings(host=host, token_file=Path("t")))


@pytest.mark.parametrize("address", LOCAL)
def test_loopback_is_for_whoever_is_on_the_machine(address: str) -> None:
    """Nothing is asked for there."""
    refuse_strangers(CortexSettings(gateway=GatewaySettings(listen=f"{address}:1")))
    refuse_strangers(NeuronSettings(host=address.strip("[]")))


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    """One without the other is a mistake."""
    file = tmp_path / "cortex.toml"
    file.write_text('[tls]\ncert_file = "c.pem"\n')

    with pytest.raises(ConfigError, match="go together"):
        load_cortex_settings(file, {})


def test_the_key_of_commands_is_no_setting() -> None:
    """A daemon may be started where it is set."""
    assert load_cortex_settings(None, {"CORTEX_KEY_FILE": "k"}) == load_cortex_settings(None, {})
