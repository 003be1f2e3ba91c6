"""What both commands share: which file, which sentence, which exit status."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cortex_core.commands import (
    Exit,
    Failure,
    Listener,
    bind_error,
    explain_listen_error,
    find_config,
    listening,
    missing_extra,
    reporting,
)


def test_the_file_nearest_by_is_read(tmp_path: Path) -> None:
    """Named, here, system, none: in this order."""
    here, system = tmp_path / "here", tmp_path / "etc"
    for folder in (here, system):
        folder.mkdir()
    found = [find_config(None, "x.toml", here=here, system=system)]
    (system / "x.toml").touch()
    found.append(find_config(None, "x.toml", here=here, system=system))
    (here / "x.toml").touch()
    found.append(find_config(None, "x.toml", here=here, system=system))

    assert found == [None, system / "x.toml", here / "x.toml"]
    assert find_config(Path("gone"), "x.toml", here=here, system=system) == here / "gone"


def test_a_failure_becomes_a_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    """The person sees a sentence, the script a number."""

    @reporting
    def command() -> None:
        raise Failure("the node is away", Exit.UNREACHABLE)

    with pytest.raises(SystemExit) as end:
        command()

    assert end.value.code == 3
    assert capsys.readouterr() == ("", "the node is away\n")


def test_a_busy_port_names_the_port_who_to_look_for_and_the_setting() -> None:
    """Only the address that is really taken is blamed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listeners = (Listener("127.0.0.1", port, "set port"), Listener("127.0.0.1", 0, "set other"))
        with pytest.raises(Failure) as failure, listening(listeners):
            socket.create_server(("127.0.0.1", port))

    assert str(failure.value) == (
        f"127.0.0.1:{port} is already in use. See who has it: ss -ltnp 'sport = :{port}'. "
        "To change it: set port."
    )
    assert failure.value.code is Exit.UNWELL


def test_the_address_in_the_error_is_believed() -> None:
    """A daemon that names the address knows better than a look afterwards."""
    listeners = (Listener("::1", 1, "set one"), Listener("127.0.0.1", 2, "set two"))
    error = OSError(errno.EADDRINUSE, "in use", "[::1]:1")

    assert explain_listen_error(error, listeners) == (
        "[::1]:1 is already in use. See who has it: ss -ltnp 'sport = :1'. To change it: set one."
    )


def test_an_error_that_has_nothing_to_do_with_listening_stays() -> None:
    """A full disk is not a busy port."""
    with pytest.raises(OSError, match="full"), listening(()):
        raise OSError(errno.ENOSPC, "full")


def test_a_free_port_has_no_error() -> None:
    """And one with a listener has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = bind_error("127.0.0.1", port)

    assert busy is not None
    assert busy.errno == errno.EADDRINUSE
    assert bind_error("127.0.0.1", port) is None


def test_a_missing_package_names_its_extra() -> None:
    """A missing module of our own is a bug and keeps its trace."""
    theirs = ModuleNotFoundError("No module named 'sanic'", name="sanic.http")
    ours = ModuleNotFoundError("No module named 'cortex_core.gone'", name="cortex_core.gone")

    assert "pip install 'cortex[gateway]'" in str(missing_extra(theirs, extra="gateway"))
    assert missing_extra(ours, extra="gateway") is None


def test_a_daemon_ends_with_its_stdin() -> None:
    """Its parent may be killed without a chance to say goodbye."""
    program = (
        "import signal, sys\nfrom cortex_core.commands import end_with_stdin\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "end_with_stdin()\nprint('up', flush=True)\nsignal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        alive = child.poll() is None
        child.stdin.close()
        try:
            code = child.wait(10)
        finally:
            if child.poll() is None:
                os.kill(child.pid, signal.SIGKILL)

    assert alive
    assert code == 7
