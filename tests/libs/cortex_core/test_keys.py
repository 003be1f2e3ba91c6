"""The file of keys: added to, marked in, never rewritten, never with a key in it."""

import re
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.access import digest_of
from cortex_core.keys import add_key, load_keys, new_secret, revoke_key
from cortex_core.loading import ConfigError

NAMES = st.text("abcXYZ019._@-", min_size=1, max_size=10)
PATTERNS = st.text(st.characters(exclude_characters="*"), min_size=1, max_size=10)
LIMITS = st.one_of(st.none(), st.integers(1, 10**9))


@given(
    st.dictionaries(
        NAMES,
        st.fixed_dictionaries(
            {
                "admin": st.booleans(),
                "models": st.one_of(st.none(), st.lists(PATTERNS, max_size=3).map(tuple)),
                "requests_per_minute": LIMITS,
                "max_in_flight": LIMITS,
                "expires": st.one_of(st.none(), st.just(datetime(2027, 1, 2, tzinfo=UTC))),
            }
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_entered_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, dict[str, object]]
) -> None:
    """Any name, model and limit; each key is known by its digest, and stands nowhere."""
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    secrets = {name: new_secret() for name in wanted}
    made = [add_key(path, secrets[name], name=name, **more) for name, more in wanted.items()]

    assert load_keys(path).keys == tuple(made)
    ring = load_keys(path).keyring()
    assert [ring[digest_of(secret)].name for secret in secrets.values()] == list(wanted)
    assert all(secret not in path.read_text() for secret in secrets.values())

    first = next(iter(wanted))
    revoked = revoke_key(path, first)
    assert revoked.revoked is not None
    assert load_keys(path).keys == (revoked, *made[1:])
    assert revoke_key(path, first) == revoked


def test_comments_mode_and_link_stay(tmp_path: Path) -> None:
    """A file that an operator cares for is still theirs after a command."""
    real, path = tmp_path / "real.toml", tmp_path / "keys.toml"
    real.write_text("# mine\n[[keys]] # of a friend\n" + f'sha256 = "{"0" * 64}"\nname = "old"\n')
    real.chmod(0o600)
    path.symlink_to(real)

    add_key(path, new_secret(), name="new")
    revoke_key(path, "old")

    text = real.read_text()
    assert text.startswith("# mine\n[[keys]] # of a friend\n")
    assert path.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert [(key.name, key.revoked is None) for key in load_keys(path).keys] == [
        ("old", False),
        ("new", True),
    ]


def test_a_new_file_is_not_for_everybody(tmp_path: Path) -> None:
    """Digests are no secret, but who has a key is nobody's business."""
    add_key(tmp_path / "keys.toml", new_secret(), name="a")

    assert stat.S_IMODE((tmp_path / "keys.toml").stat().st_mode) == 0o640


def test_what_cannot_be_edited_safely_is_left_alone(tmp_path: Path) -> None:
    """A list of inline tables is valid, and a command that would break it says so."""
    path = tmp_path / "keys.toml"
    before = f'keys = [\n  {{ name = "a", sha256 = "{"0" * 64}" }},\n]\n'
    path.write_text(before)

    with pytest.raises(ConfigError):
        revoke_key(path, "a")
    with pytest.raises(ConfigError):
        add_key(path, new_secret(), name="b")
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[keys]]\nname = "a"\n', "keys.0.sha256: Field required"),
        (f'[[keys]]\nname = "a b"\nsha256 = "{"0" * 64}"\n', "keys.0.name"),
        (f'[[keys]]\nname = "a"\nsha256 = "{"0" * 64}"\nmodel = []\n', "did you mean 'models'"),
        (f'[[keys]]\nname = "a"\nsha256 = "{"0" * 64}"\nexpires = 2027-01-01\n', "expires"),
        (f'[[keys]]\nname = "a"\nsha256 = "{"0" * 64}"\nmodels = ["a*b*"]\n', "models"),
        (f'[[keys]]\nname = "a"\nsha256 = "{"0" * 64}"\n' * 2, "share the name 'a'"),
        ("keys = 7", "keys"),
        ("[[keys", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    """With its key, as everywhere."""
    path = tmp_path / "keys.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"keys\.toml") as caught:
        load_keys(path)
    assert said in str(caught.value)


def test_a_key_in_the_wrong_place_is_not_told(tmp_path: Path) -> None:
    """Whoever pastes a key where its digest belongs does not find it in the log."""
    path, secret = tmp_path / "keys.toml", new_secret()
    path.write_text(f'[[keys]]\nname = "a"\nsha256 = "{secret}"\n')

    with pytest.raises(ConfigError, match="sha256") as caught:
        load_keys(path)
    assert secret not in str(caught.value)


def test_keys_are_like_no_others() -> None:
    """Long, of letters that need no quoting anywhere, and never the same."""
    secrets = {new_secret() for _ in range(100)}

    assert len(secrets) == 100
    assert all(re.fullmatch(r"sk-cortex-[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_a_name_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With those that are."""
    path = tmp_path / "keys.toml"
    entry = add_key(path, new_secret(), name="alice")

    with pytest.raises(ConfigError, match="no key 'bob'; keys: alice"):
        revoke_key(path, "bob")
    assert load_keys(path).keys == (entry,)
