"""What the two commands, `cortex` and `neuron`, have in common: exit codes, files, sentences.

Standard library only, so that `--help` and `version` answer at once. A command raises `Failure`
and `reporting` turns it into one line on stderr and the exit code; anything else that escapes is a
bug and keeps its trace.
"""

import errno
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

SYSTEM_CONFIG = Path("/etc/cortex")
#: Names the file with the key that commands ask cortex with; it is no setting of a daemon.
KEY_FILE_VARIABLE = "CORTEX_KEY_FILE"
EXIT_CODES = (
    "Exit status: 0 ok; 1 what was asked about is not well, or the action failed; "
    "2 usage or configuration error; 3 cortex cannot be reached."
)


class Exit(IntEnum):
    """What the exit status of a command means."""

    OK = 0
    UNWELL = 1
    USAGE = 2
    UNREACHABLE = 3


class Failure(Exception):
    """The command cannot go on; the message is for the person who typed it."""

    def __init__(self, message: str, code: Exit = Exit.UNWELL) -> None:
        super().__init__(message)
        self.code = code


class Listener(NamedTuple):
    """An address a daemon will listen on, and how an operator changes it."""

    host: str
    port: int
    remedy: str


def reporting(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return `command` with every Failure said on stderr and turned into its exit status."""

    @functools.wraps(command)
    def reported(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except Failure as failure:
            sys.stderr.write(f"{failure}\n")
            raise SystemExit(int(failure.code)) from failure

    return reported


def find_config(named: Path | None, name: str, *, here: Path, system: Path) -> Path | None:
    """Return the file to read: the one that was named, else `name` in `here`, else in `system`.

    None stands for the built-in defaults. A file that was named is returned even when it is not
    there, because leaving it out silently would start something else than what was asked for.
    """
    if named is not None:
        return here / named
    found = (folder / name for folder in (here, system) if (folder / name).is_file())
    return next(found, None)


def missing_extra(error: ImportError, *, extra: str) -> Failure | None:
    """Return the sentence for a package that is not installed, or None for a bug of ours."""
    package = (error.name or "").partition(".")[0]
    if not package or package.startswith("cortex_"):
        return None
    return Failure(
        f"the Python package {package!r} is missing ({error}). "
        f"Install the {extra!r} extra: pip install 'cortex[{extra}]'"
    )


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Run imports of heavy packages; a missing one becomes a Failure that names `extra`."""
    try:
        yield
    except ImportError as error:
        failure = missing_extra(error, extra=extra)
        if failure is None:
            raise
        raise failure from error


@contextmanager
def listening(listeners: Iterable[Listener]) -> Iterator[None]:
    """Run a daemon; an address that it could not take becomes a Failure that says what to do."""
    try:
        yield
    except OSError as error:
        sentence = explain_listen_error(error, tuple(listeners))
        if sentence is None:
            raise
        raise Failure(sentence) from error


def explain_listen_error(error: OSError, listeners: tuple[Listener, ...]) -> str | None:
    """Return what to do about a listening socket that failed; None for any other error."""
    reasons = {
        errno.EADDRINUSE: "is already in use",
        errno.EADDRNOTAVAIL: "is not an address of this machine",
        errno.EACCES: "may not be opened by this user",
    }
    reason = reasons.get(error.errno or 0)
    if reason is None:
        return None
    # The error of a daemon names the address; another one may not, so look who is refused now.
    guilty = (
        [one for one in listeners if _address(one) == error.filename]
        or [one for one in listeners if bind_error(one.host, one.port)]
        or list(listeners)
    )
    return "\n".join(f"{_address(one)} {reason}.{_advice(error, one)}" for one in guilty)


def bind_error(host: str, port: int) -> OSError | None:
    """Return why nothing can listen on the address just now; None when something can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As a server does: a port in TIME_WAIT is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def end_with_stdin() -> None:
    """Send this process a SIGTERM when its stdin ends: its parent is gone, however it went."""

    def wait_for_end() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="stdin-watch", daemon=True).start()


def _address(one: Listener) -> str:
    return f"[{one.host}]:{one.port}" if ":" in one.host else f"{one.host}:{one.port}"


def _advice(error: OSError, one: Listener) -> str:
    look = f" See who has it: ss -ltnp 'sport = :{one.port}'."
    return f"{look if error.errno == errno.EADDRINUSE else ''} To change it: {one.remedy}."
