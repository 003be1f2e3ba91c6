"""A configuration is used as written, or it is refused with file, key and remedy."""

from pathlib import Path

import pytest

from cortex_core.loading import ConfigError
from cortex_core.settings import (
    Address,
    load_catalogue,
    load_cortex_settings,
    load_neuron_settings,
)


def write(folder: Path, text: str, name: str = "cortex.toml") -> Path:
    """Write a file."""
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_are_those_of_the_documentation() -> None:
    """Loopback, the documented ports, LRU."""
    settings = load_cortex_settings(None, {})

    assert settings.gateway.listen == "127.0.0.1:31313"
    assert settings.gateway.metrics_listen == "127.0.0.1:31314"
    assert settings.eviction.strategy == "lru"
    assert load_neuron_settings(None, {}).port == 13131


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Nested with two underscores, single ones kept."""
    path = write(tmp_path, '[gateway]\nlisten = "127.0.0.1:1"\nrequest_max_mb = 2\n')

    settings = load_cortex_settings(
        path, {"CORTEX_GATEWAY__LISTEN": "127.0.0.1:5", "CORTEX_GATEWAY__REQUEST_MAX_MB": "9"}
    )

    assert (settings.gateway.listen, settings.gateway.request_max_mb) == ("127.0.0.1:5", 9)


def test_neuron_port_comes_from_the_environment() -> None:
    """The documented variable."""
    assert load_neuron_settings(None, {"NEURON_PORT": "7"}).port == 7


def test_relative_paths_start_at_the_file_that_names_them(tmp_path: Path) -> None:
    """Not at the working directory."""
    path = write(tmp_path, 'models_config = "sub/models.toml"\n')

    assert load_cortex_settings(path, {}).models_config == tmp_path / "sub/models.toml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[gatewy]\n", "did you mean 'gateway'?"),
        ('[gateway]\nlistn = "x"\n', "gateway.listn: unknown key; did you mean 'listen'?"),
        ('[gateway]\nlisten = "localhost"\n', "ip:port"),
        ('[gateway]\nlisten = "127.0.0.1:99999"\n', "ip:port"),
        ('[gateway]\nworkers = "many"\n', "gateway.workers"),
        ('[[neurons]]\nname = "a"\nendpoint = "beast:1"\n', "neurons.0.endpoint"),
        ('[[neurons]]\nname = "a"\nendpoin = "http://x:1"\n', "did you mean 'endpoint'?"),
        ("gateway = 3\n", "gateway"),
        ("[gateway\n", "not valid TOML"),
        ("[timeouts]\nidle = 0\n", "timeouts.idle"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, says: str) -> None:
    """File, key path, what is wrong, and the nearest valid key."""
    path = write(tmp_path, text)

    with pytest.raises(ConfigError) as refused:
        load_cortex_settings(path, {})

    assert str(path) in str(refused.value)
    assert says in str(refused.value)


def test_a_typo_in_the_environment_is_an_error() -> None:
    """It must stop the start, not change nothing."""
    with pytest.raises(ConfigError, match="did you mean 'listen'"):
        load_cortex_settings(None, {"CORTEX_GATEWAY__LISTENN": "127.0.0.1:1"})


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    """Defaults would hide it."""
    with pytest.raises(ConfigError, match="no such file"):
        load_cortex_settings(tmp_path / "absent.toml", {})


def test_two_neurons_of_one_name_are_refused(tmp_path: Path) -> None:
    """A name is an address in every answer."""
    entry = '[[neurons]]\nname = "a"\nendpoint = "http://x:1"\n'

    with pytest.raises(ConfigError, match="share the name 'a'"):
        load_cortex_settings(write(tmp_path, entry * 2), {})


def test_an_endpoint_loses_its_slash(tmp_path: Path) -> None:
    """Two slashes in a row would be another path."""
    path = write(tmp_path, '[[neurons]]\nname = "a"\nendpoint = "http://x:1/"\n')

    assert load_cortex_settings(path, {}).neurons[0].endpoint == "http://x:1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[models]]\nid = "m"\n[[models]]\nid = "m"\n', "listed twice"),
        ('[[models]]\nid = "m"\nvram = 3\n', "did you mean 'vram_mb'?"),
        ('[[models]]\nid = ""\n', "models.0.id"),
        ('[aliases]\na = "b"\nb = "c"\n', "leads to the alias 'b'"),
        ('[[models]]\nid = "m"\n[aliases]\nm = "x"\n', "rename the alias"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(tmp_path: Path, text: str, says: str) -> None:
    """The catalogue is as strict as the rest."""
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        load_catalogue(write(tmp_path, text, "models.toml"))


@pytest.mark.parametrize(
    ("text", "parsed"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80))]
)
def test_addresses_parse_and_print(text: str, parsed: tuple[str, int]) -> None:
    """Both families."""
    address = Address.parse(text)

    assert tuple(address) == parsed
    assert str(address) == text
