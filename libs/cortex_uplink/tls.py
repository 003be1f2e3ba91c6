"""Certificates: ours towards clients, and those that nodes are checked by."""

import ssl
from pathlib import Path

from cortex_core.loading import ConfigError
from cortex_core.settings import TlsSettings


def server_tls(settings: TlsSettings) -> ssl.SSLContext | None:
    """Return what a daemon proves itself with, None for plain HTTP. Raises ConfigError."""
    if settings.cert_file is None or settings.key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings.cert_file, settings.key_file)
    return context


def renew(context: ssl.SSLContext | None, settings: TlsSettings) -> None:
    """Have connections from now on see what the files hold now. Raises ConfigError.

    Then, and where TLS is turned on or off, which takes a restart, everything is as before.
    """
    fresh = server_tls(settings)
    if context is not None and fresh is not None:
        assert settings.cert_file is not None and settings.key_file is not None  # noqa: PT018, S101
        _load(context, settings.cert_file, settings.key_file)


def client_tls(ca_file: Path | None) -> ssl.SSLContext:
    """Return what nodes' certificates are checked by: the system's where no file is named.

    Raises ConfigError.
    """
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        raise ConfigError(f"tls.ca_file: {ca_file}: {_reason(error)}") from error


def _load(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    for key, file in (("cert_file", cert_file), ("key_file", key_file)):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigError(f"tls.{key}: {file}: {_reason(error)}") from error
    try:
        # A key that asks for a password would have the daemon wait for somebody to type.
        context.load_cert_chain(cert_file, key_file, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tls: {cert_file} and {key_file} are no certificate with its key: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
