"""Runs inside the container, next to the daemons, and writes down what it finds.

Standard library only. Every finding is a plain value in `/probe/findings.json`; what it should be
is for the tests to say.
"""

import contextlib
import http.client
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

PROBE = Path("/probe")
CORTEX, NEURON, WITNESS = 31313, 13131, 19999
MODEL = "small"
#: Where a service has no business to write.
ELSEWHERE = ("/etc", "/usr", "/opt", "/var/lib", "/var/log", "/root", "/home", "/srv")
QUESTION = {
    "model": MODEL,
    "stream": True,
    "temperature": 0,
    "max_tokens": 120,
    "messages": [{"role": "user", "content": "Count from one to fifty, in words."}],
}
#: Named among the nodes, to hear what cortex sends to them.
heard: list[str | None] = []

_Value = TypeVar("_Value")


class Witness(http.server.BaseHTTPRequestHandler):
    """Looks like a node for long enough to be shown a token."""

    def do_GET(self) -> None:
        """Note the token and have nothing to offer."""
        heard.append(self.headers.get("authorization"))
        self.send_error(503)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base
        """Keep quiet."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Return how `command` ended and what it said."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def until(check: Callable[[], _Value], within: float = 60.0) -> _Value | None:
    """Return the first truthy answer, or None when there is none in time."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            if value := check():
                return value
        time.sleep(0.05)
    return None


def allowed(port: int) -> dict[str, str]:
    """Return the headers that a daemon here wants of who asks it."""
    if port != NEURON:
        return {}
    token = Path("/etc/cortex/node.token").read_text(encoding="utf-8")
    return {"authorization": f"Bearer {token}"}


def get(port: int, path: str) -> Any:
    """Return the JSON answer of a daemon here."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=allowed(port))
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def stranger() -> int:
    """Return what the node says to who has no token."""
    connection = http.client.HTTPConnection("127.0.0.1", NEURON, timeout=10)
    try:
        connection.request("GET", "/models")
        return connection.getresponse().status
    finally:
        connection.close()


def answer(port: int, begun: threading.Event, into: dict[str, Any]) -> None:
    """Ask for a streamed answer and keep all of it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    text = b""
    try:
        body = json.dumps(QUESTION)
        connection.request(
            "POST",
            "/v1/chat/completions",
            body,
            {"content-type": "application/json", **allowed(port)},
        )
        response = connection.getresponse()
        into["status"] = response.status
        while piece := response.read1(1 << 16):
            text += piece
            begun.set()
    except (OSError, http.client.HTTPException) as error:
        into["error"] = repr(error)
    finally:
        begun.set()
        into["text"] = text.decode(errors="replace")
        connection.close()


def shown(unit: str) -> dict[str, str]:
    """Return what systemd says of a unit."""
    wanted = "ActiveState,Result,MainPID,ExecMainStatus,NRestarts,ControlGroup,TimeoutStopUSec"
    lines = run("systemctl", "show", f"--property={wanted}", unit).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def confinement(unit: str) -> dict[str, Any]:
    """Return what the service may still do, tried from its own view of the files."""
    pid = shown(unit)["MainPID"]
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    inside = ("nsenter", "--target", pid, "--mount", "--")
    uid, gid = fields["Uid"].split()[0], fields["Gid"].split()[0]
    itself = (*inside, "setpriv", "--reuid", uid, "--regid", gid, "--clear-groups")

    def writable(touch: tuple[str, ...], places: tuple[str, ...]) -> list[str]:
        return [one for one in places if not run(*touch, "touch", f"{one}/from-{unit}").returncode]

    devices = run(*inside, "ls", "/dev").stdout.split()
    return {
        "uid": int(uid),
        "capabilities": fields["CapEff"].strip(),
        "no_new_privileges": fields["NoNewPrivs"].strip(),
        "seccomp": fields["Seccomp"].strip(),
        # Root could write anywhere if the files were not read-only for the service.
        "writable_for_root": writable(inside, ELSEWHERE),
        "writable": writable(itself, (*ELSEWHERE, "/run", "/etc/cortex")),
        "own_state": writable(itself, (f"/var/lib/{unit}",)),
        "devices": devices,
    }


def reloaded() -> dict[str, Any]:
    """Return whether a changed file is read again by the same process."""
    file = Path("/etc/cortex/models.toml")
    before = shown("cortex")["MainPID"]
    file.write_text(
        file.read_text(encoding="utf-8") + f'[aliases]\n"other-name" = "{MODEL}"\n', "utf-8"
    )
    status = run("systemctl", "reload", "cortex").returncode
    listed = until(
        lambda: [one for one in get(CORTEX, "/v1/models")["data"] if one["id"] == "other-name"],
        within=10,
    )
    return {
        "status": status,
        "listed": bool(listed),
        "same_process": shown("cortex")["MainPID"] == before,
    }


def drained(unit: str, port: int) -> dict[str, Any]:
    """Return what becomes of an answer under way when its unit is stopped."""
    group = shown(unit)["ControlGroup"]
    begun, found = threading.Event(), dict[str, Any]()
    asking = threading.Thread(target=answer, args=(port, begun, found))
    asking.start()
    begun.wait(60)
    started = time.monotonic()
    run("systemctl", "stop", unit)
    took = time.monotonic() - started
    asking.join(60)
    left = Path(f"/sys/fs/cgroup/systemd{group}/cgroup.procs")
    processes = left.read_text(encoding="utf-8").split() if left.exists() else []
    return {**found, **shown(unit), "took_secs": took, "left": processes}


def killed() -> dict[str, Any]:
    """Return whether a gateway that dies comes back by itself."""
    before = shown("cortex")["MainPID"]
    run("kill", "-KILL", before)
    back = until(
        lambda: shown("cortex")["MainPID"] not in (before, "0") and get(CORTEX, "/health"), 30
    )
    return {"back": bool(back), "restarts": shown("cortex")["NRestarts"]}


def misconfigured() -> dict[str, str]:
    """Return what systemd makes of a gateway whose configuration has a typo."""
    file = Path("/etc/cortex/cortex.toml")
    file.write_text(file.read_text(encoding="utf-8") + "\n[gatewya]\n", "utf-8")
    run("systemctl", "start", "cortex")
    until(lambda: shown("cortex")["ActiveState"] == "failed", 20)
    return shown("cortex")


def look(only: str) -> Mapping[str, Any]:
    """Return everything there is to find; `only` "confinement" starts with that and ends there."""
    witness = http.server.ThreadingHTTPServer(("127.0.0.1", WITNESS), Witness)
    threading.Thread(target=witness.serve_forever, daemon=True).start()
    started = time.monotonic()
    found: dict[str, Any] = {"start": run("systemctl", "start", "neuron", "cortex").stderr}
    found["health"] = until(lambda: get(CORTEX, "/health"))
    found["ready_secs"] = time.monotonic() - started
    found["cortex"] = confinement("cortex")
    if only == "confinement":
        return found
    found["neuron"] = confinement("neuron")
    found["loaded"] = until(
        lambda: [one for one in get(NEURON, "/models") if one["status"] == "loaded"], 90
    )
    until(lambda: [one for one in get(CORTEX, "/v1/models")["data"] if one.get("loaded")], 30)
    until(lambda: heard)
    found["stranger"] = stranger()
    found["token"] = heard[0] if heard else None
    found["reload"] = reloaded()
    found["killed"] = killed()
    until(lambda: [one for one in get(CORTEX, "/v1/models")["data"] if one.get("loaded")], 30)
    found["cortex_stop"] = drained("cortex", CORTEX)
    found["neuron_stop"] = drained("neuron", NEURON)
    found["misconfigured"] = misconfigured()
    return found


if __name__ == "__main__":
    findings: Mapping[str, Any] = {}
    try:
        findings = look(sys.argv[1])
    finally:
        journal = run("journalctl", "--no-pager", "--output=short-monotonic").stdout
        (PROBE / "journal.txt").write_text(journal, "utf-8")
        (PROBE / "findings.json").write_text(json.dumps(findings), "utf-8")
