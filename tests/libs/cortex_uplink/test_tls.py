"""Certificates that are there, that are not, and that are renewed."""

from pathlib import Path

import pytest

from cortex_core.loading import ConfigError
from cortex_core.settings import TlsSettings
from cortex_uplink.tls import client_tls, renew, server_tls
from tests.libs.cortex_uplink.peers import CERTIFICATE

GOOD = TlsSettings(cert_file=CERTIFICATE, key_file=CERTIFICATE)


def test_without_settings_there_is_no_tls() -> None:
    """Plain HTTP is the default."""
    assert server_tls(TlsSettings()) is None
    renew(None, TlsSettings())


def test_a_certificate_can_be_loaded_again() -> None:
    """The context that listeners have is the one that is renewed."""
    context = server_tls(GOOD)

    assert context is not None
    renew(context, GOOD)
    renew(context, TlsSettings())  # that takes a restart


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("none.pem", "some.pem", "tls.cert_file: .*none.pem: No such file"),
        ("some.pem", "none.pem", "tls.key_file: .*none.pem: No such file"),
        ("some.pem", "some.pem", "no certificate with its key"),
        ("locked.pem", "locked.pem", "no certificate with its key"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, cert: str, key: str, said: str) -> None:
    """A key with a password too: nobody is there to type it."""
    (tmp_path / "some.pem").write_text("nothing of the kind")
    public = CERTIFICATE.read_text().partition("-----BEGIN CERTIFICATE")[2]
    (tmp_path / "locked.pem").write_text(
        f"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
        f"-----BEGIN CERTIFICATE{public}"
    )
    settings = TlsSettings(cert_file=tmp_path / cert, key_file=tmp_path / key)
    context = server_tls(GOOD)

    with pytest.raises(ConfigError, match=said):
        server_tls(settings)
    with pytest.raises(ConfigError, match=said):
        renew(context, settings)


def test_trust_is_the_systems_or_what_is_named(tmp_path: Path) -> None:
    """A file that is not there is no reason to trust the system's instead."""
    assert len(client_tls(CERTIFICATE).get_ca_certs()) == 1
    assert client_tls(None).check_hostname
    with pytest.raises(ConfigError, match=r"tls\.ca_file"):
        client_tls(tmp_path / "none.pem")
