"""Principals: the same for the same client, another for any other, and nobody's key."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.principals import PRINCIPAL_HEADER, principal_of, told_principal

KEY = {"authorization": "Bearer sk-secret"}


def test_a_client_is_the_same_whenever_it_asks() -> None:
    """On every worker and replica of a gateway, too: nothing random is in it."""
    assert principal_of(KEY, "10.0.0.7") == principal_of(dict(KEY), "10.0.0.7")
    assert principal_of({}, "10.0.0.7") == "4a5fcba80dcadc6a"


def test_another_key_or_another_address_is_another() -> None:
    """One placeholder key for all is no reason to share a turn, nor is one proxy."""
    principals = {
        principal_of(headers, address)
        for headers in ({}, KEY, {"x-api-key": "sk-secret"}, {"x-api-key": "Bearer sk-secret"})
        for address in ("10.0.0.7", "10.0.0.8")
    }

    assert len(principals) == 8


@given(st.text(), st.text())
def test_it_is_short_and_says_nothing(key: str, address: str) -> None:
    """Sixteen hex digits, whatever the key is."""
    principal = principal_of({"x-api-key": key}, address)

    assert len(principal) == 16
    assert int(principal, 16) >= 0


def test_a_node_takes_what_a_gateway_says() -> None:
    """Only when it is a principal: else its own idea of who asks."""
    ours = principal_of(KEY, "10.0.0.7")

    assert told_principal({PRINCIPAL_HEADER: ours}, "10.0.0.1") == ours
    for nonsense in ("", "me", ours.upper() + "!", f"{ours} {ours}"):
        told = {PRINCIPAL_HEADER: nonsense, **KEY}
        assert told_principal(told, "10.0.0.7") == ours
