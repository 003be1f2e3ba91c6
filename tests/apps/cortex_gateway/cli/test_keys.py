"""`cortex keys`: a key is printed once, its digest is kept, and the file stays its owner's."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cortex_core.access import digest_of
from cortex_core.keys import load_keys
from cortex_gateway.cli.app import app


def run(*arguments: str) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of `cortex keys`."""
    result = CliRunner().invoke(app, ("keys", *arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of keys that a cortex.toml in the working directory names."""
    (tmp_path / "cortex.toml").write_text('[access]\nkeys_file = "keys.toml"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path / "keys.toml"


def test_a_key_is_printed_alone(file: Path) -> None:
    """So that it can be piped; where it went is said on stderr, and the file has no key in it."""
    code, out, err = run("create", "alice", "--model", "qwen*", "--model", "a", "--days", "2")

    assert code == 0
    secret = out.strip()
    assert out == f"{secret}\n"
    assert str(file) in err
    assert secret not in err + file.read_text()
    (entry,) = load_keys(file).keys
    assert bytes.fromhex(entry.sha256) == digest_of(secret)
    assert entry.models == ("qwen*", "a")
    assert entry.created is not None
    assert entry.expires is not None
    assert (entry.expires - entry.created).days == 2


def test_all_limits_arrive(file: Path) -> None:
    """By their names in the file."""
    code, _, _ = run(
        *("create", "bob", "--admin", "--requests-per-minute", "60"),
        *("--tokens-per-minute", "9000", "--max-in-flight", "2"),
    )

    assert code == 0
    (entry,) = load_keys(file).keys
    assert (entry.requests_per_minute, entry.tokens_per_minute) == (60, 9000)
    assert (entry.max_in_flight, entry.admin, entry.models) == (2, True, None)


def test_keys_are_listed_with_their_state(file: Path) -> None:
    """For people and as JSON; digests are nobody's business there."""
    run("create", "alice", "--requests-per-minute", "5")
    run("create", "late", "--days", "0")
    run("create", "gone", "--admin")
    code, _, err = run("revoke", "gone")
    assert (code, "gone is revoked" in err) == (0, True)

    code, out, _ = run("list", "--json")
    assert code == 0
    assert [(row["name"], row["state"]) for row in json.loads(out)] == [
        ("alice", "valid"),
        ("late", "expired"),
        ("gone", "revoked"),
    ]
    assert all("sha256" not in row for row in json.loads(out))
    code, out, _ = run("list", "--file", str(file))
    assert code == 0
    assert "gone (admin)" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "alice"), "share the name 'alice'"),
        (("create", "a b"), "name"),
        (("create", "bob", "--model", "a*b*"), "models"),
        (("create", "bob", "--max-in-flight", "0"), "max-in-flight"),
        (("revoke", "bob"), "no key 'bob'; keys: alice"),
        (("list", "--file", "none.toml"), "none.toml: no such file"),
    ],
)
def test_a_mistake_changes_nothing(file: Path, arguments: tuple[str, ...], said: str) -> None:
    """Exit status 2 and what is wrong."""
    run("create", "alice")
    before = file.read_text()

    code, out, err = run(*arguments)

    assert (code, out) == (2, "")
    assert said in err
    assert file.read_text() == before


def test_without_a_file_it_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the configuration or on the command line."""
    monkeypatch.chdir(tmp_path)

    code, _, err = run("create", "alice", "--config", "cortex.toml")
    assert code == 2
    assert "cortex.toml" in err
    (tmp_path / "cortex.toml").write_text("")
    code, _, err = run("create", "alice")
    assert (code, "[access] keys_file" in err) == (2, True)
