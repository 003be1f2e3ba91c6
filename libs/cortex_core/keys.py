"""The file of API keys: what each allows, and the digest that it is known by, never the key.

`cortex keys` adds to the file and marks in it; whatever else stands there, comments too, stays as
it is. Everything may be edited by hand.
"""

import base64
import os
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from cortex_core.access import Grant, Keyring, digest_of
from cortex_core.loading import ConfigError, parse_toml, read_toml, validate

_PREFIX: Final = "sk-cortex-"
_SECRET_BYTES: Final = 32
_MODE: Final = 0o640
_HEAD: Final = """\
# API keys of cortex, by their SHA-256. Edit limits by hand, then reload cortex (SIGHUP).
"""

Pattern = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^*]*\*?[^*]*$")]
Limit = Annotated[int, Field(ge=1)]


class KeyEntry(BaseModel):
    """`[[keys]]`: one key. What is left out is not limited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._@-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: AwareDatetime | None = None
    admin: bool = False
    models: tuple[Pattern, ...] | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_in_flight: Limit | None = None
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def grant(self) -> Grant:
        """Return what the key allows."""
        return Grant(
            name=self.name,
            admin=self.admin,
            models=self.models,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_in_flight=self.max_in_flight,
            expires_at=self.expires.timestamp() if self.expires else None,
            revoked=self.revoked is not None,
        )


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[KeyEntry, ...] = ()

    @field_validator("keys")
    @classmethod
    def _distinct(cls, keys: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
        for what in ("name", "sha256"):
            said = [getattr(entry, what) for entry in keys]
            if twice := sorted({one for one in said if said.count(one) > 1}):
                raise ValueError(f"two keys share the {what} {twice[0]!r}; give each its own")
        return keys

    def keyring(self) -> Keyring:
        """Return what each key allows, by its digest."""
        return {bytes.fromhex(entry.sha256): entry.grant() for entry in self.keys}


def load_keys(path: Path) -> KeyFile:
    """Return the keys of a file. Raises ConfigError."""
    return validate(KeyFile, read_toml(path), where=str(path), secret=True)


def new_secret() -> str:
    """Return a key that nobody has."""
    random = secrets.token_bytes(_SECRET_BYTES)
    return _PREFIX + base64.urlsafe_b64encode(random).decode().rstrip("=")


def add_key(path: Path, secret: str, **limits: Any) -> KeyEntry:
    """Enter a key with `limits`, fields of KeyEntry, in a file. Raises ConfigError."""
    before = load_keys(path) if path.exists() else KeyFile()
    said = {"sha256": digest_of(secret).hex(), "created": _now(), **limits}
    entry = validate(KeyEntry, said, where="the new key", secret=True)
    text = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    lines = [f"{name} = {_toml(value)}\n" for name, value in entry if value not in (None, False)]
    _replace(path, f"{text.rstrip()}\n\n[[keys]]\n{''.join(lines)}", (*before.keys, entry))
    return entry


def revoke_key(path: Path, name: str) -> KeyEntry:
    """Mark a key as revoked, from now on. Raises ConfigError."""
    keys = load_keys(path).keys
    known = next((entry for entry in keys if entry.name == name), None)
    if known is None:
        names = ", ".join(entry.name for entry in keys) or "none"
        raise ConfigError(f"{path}: there is no key {name!r}; keys: {names}")
    if known.revoked is not None:
        return known
    revoked = known.model_copy(update={"revoked": _now()})
    after = tuple(revoked if entry is known else entry for entry in keys)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    said = next((at for at, line in enumerate(lines) if known.sha256 in line), len(lines) - 1)
    lines.insert(said + 1, f"revoked = {_toml(revoked.revoked)}\n")
    _replace(path, "".join(lines), after)
    return revoked


def _replace(path: Path, text: str, meant: tuple[KeyEntry, ...]) -> None:
    """Write the file in one step, if it then says what is meant. Its mode and owner stay."""
    said = validate(KeyFile, parse_toml(text, path), where=str(path), secret=True)
    if said.keys != meant:
        raise ConfigError(f"{path}: it is written in a way that only you can edit; do it by hand")
    whole = path.resolve()
    try:
        handle, temporary = tempfile.mkstemp(dir=whole.parent, prefix=f".{whole.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        if whole.exists():
            before = whole.stat()
            os.chmod(temporary, before.st_mode & 0o7777)  # noqa: PTH101
            if os.geteuid() == 0:
                os.chown(temporary, before.st_uid, before.st_gid)
        else:
            os.chmod(temporary, _MODE)  # noqa: PTH101
        os.replace(temporary, whole)  # noqa: PTH105
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error}") from error


def _toml(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return '"' + "".join(_escaped(one) for one in value) + '"'
    return str(value).lower()


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
