"""Where a daemon listens."""

import ipaddress
from typing import NamedTuple

MAX_PORT = 65535


class Address(NamedTuple):
    """An `ip:port` to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return `text` (`127.0.0.1:31313`, `[::1]:31313`) taken apart; ValueError otherwise."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdigit() or int(port) > MAX_PORT:
            raise ValueError("must be 'ip:port', for example '127.0.0.1:31313'")
        bare = host.removeprefix("[").removesuffix("]")
        ipaddress.ip_address(bare)
        return cls(bare, int(port))

    @property
    def is_public(self) -> bool:
        """Whether other machines may reach it."""
        return not ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
