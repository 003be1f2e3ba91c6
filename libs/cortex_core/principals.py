"""Who a request is from, as far as fairness goes: a short hash that says nothing of the client.

It is of the key and the address together. Where keys are not checked many clients carry the same
placeholder, and many come from the address of one proxy; whoever shares both is taken for one.
Where they are, `Grant.principal` is who asks.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Final

#: How cortex tells a node. Nothing that a client sends by this name is passed on.
PRINCIPAL_HEADER: Final = "x-cortex-principal"
_KEYS: Final = ("authorization", "x-api-key")
_PRINCIPAL = re.compile(r"[0-9a-f]{16}")
_BYTES = 8


def principal_of(headers: Mapping[str, str], address: str) -> str:
    """Return the principal of a request with these headers from this address: 16 hex digits."""
    return _hash(address, *[headers.get(name, "") for name in _KEYS])


@lru_cache(4096)
def _hash(*said: str) -> str:
    known = "\0".join(said)
    return blake2b(known.encode("utf-8", "surrogatepass"), digest_size=_BYTES).hexdigest()


def told_principal(headers: Mapping[str, str], address: str) -> str:
    """Return the principal that a gateway named, else that of whoever asked by itself.

    A node believes it of anybody who may reach it.
    """
    told = headers.get(PRINCIPAL_HEADER, "")
    return told if _PRINCIPAL.fullmatch(told) else principal_of(headers, address)
