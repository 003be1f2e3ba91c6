"""The units in a real systemd, from an installed package: what they do, may do and cannot do.

One container for all of it. Limits of memory, processor and devices are not looked at: a container
on a machine of today's CI cannot show them.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.nix.asking import Nix, mistake
from tests.nix.container.machine import NODE_TOKEN, TOKEN, boot, install

SERVICES = ("cortex", "neuron")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, installed from its wheel."""
    if os.geteuid() != 0:
        pytest.fail("a container needs root: run nix-check as root, or leave this out by name")
    if shutil.which("systemd-nspawn") is None:
        pytest.fail("systemd-nspawn is missing: apt install systemd-container")
    return install(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def found(
    nix: Nix, installed: Path, demo_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """What the probe found beside the units as they are."""
    folder = tmp_path_factory.mktemp("container")
    return boot(folder, installed=installed, units=nix.ask("otherLinux"), model=demo_model)


def test_it_serves(found: Mapping[str, Any]) -> None:
    """Both start at once, answer, and the node's model is there."""
    assert found["start"] == ""
    assert found["health"]["status"] in ("ok", "degraded"), found["journal"]
    assert found["ready_secs"] < 30
    assert [one["id"] for one in found["loaded"]] == ["small"]


def test_it_reads_its_credential(found: Mapping[str, Any]) -> None:
    """A token that only root can read reaches the node it is for, which asks for it; and no log."""
    assert found["token"] == f"Bearer {TOKEN}"
    assert found["stranger"] == 401
    assert TOKEN not in found["journal"]
    assert NODE_TOKEN not in found["journal"]


@pytest.mark.parametrize("name", SERVICES)
def test_it_cannot_write_outside_its_state(found: Mapping[str, Any], name: str) -> None:
    """Not even where files would let it; its own state directory it can."""
    assert found[name]["writable_for_root"] == []
    assert found[name]["writable"] == []
    assert found[name]["own_state"] == [f"/var/lib/{name}"]


@pytest.mark.parametrize("name", SERVICES)
def test_it_has_no_privileges(found: Mapping[str, Any], name: str) -> None:
    """A user of its own, no capability, no way to get one, and a filter on system calls."""
    about = found[name]

    assert about["uid"] >= 61184  # the range of dynamic users begins here
    assert int(about["capabilities"], 16) == 0
    assert about["no_new_privileges"] == "1"
    assert about["seccomp"] == "2"


def test_it_reloads(found: Mapping[str, Any]) -> None:
    """`systemctl reload` brings a new alias without a new process."""
    assert found["reload"] == {"status": 0, "listed": True, "same_process": True}


def test_it_comes_back_after_a_crash(found: Mapping[str, Any]) -> None:
    """It is started again, once."""
    assert found["killed"] == {"back": True, "restarts": "1"}


@pytest.mark.parametrize("name", SERVICES)
def test_it_drains_and_stops_in_time(found: Mapping[str, Any], name: str) -> None:
    """An answer under way ends whole; then nothing is left, well before systemd would kill it."""
    stopped = found[f"{name}_stop"]

    assert stopped.get("error") is None
    assert stopped["status"] == 200
    assert '"finish_reason":"length"' in stopped["text"]
    assert stopped["text"].rstrip().endswith("data: [DONE]")
    assert stopped["ActiveState"] == "inactive"
    assert stopped["Result"] == "success"
    assert 0.2 < stopped["took_secs"] < 30
    assert stopped["left"] == []


def test_a_wrong_configuration_is_not_tried_again(found: Mapping[str, Any]) -> None:
    """It ends with the status of a usage error, once, and says what is wrong."""
    failed = found["misconfigured"]

    assert (failed["ActiveState"], failed["ExecMainStatus"]) == ("failed", "2")
    assert failed["NRestarts"] == "0"
    assert "did you mean 'gateway'?" in found["journal"]


def test_a_weakened_unit_is_seen(
    nix: Nix, installed: Path, source: Path, demo_model: Path, tmp_path: Path
) -> None:
    """Without its read-only system the probe writes where it must not."""
    mistake(source, "nixos-modules/hardening.nix", 'ProtectSystem = "strict";', "")
    # DynamicUser brings a read-only system along.
    mistake(source, "nixos-modules/hardening.nix", "DynamicUser = true;", 'User = "nobody";')
    units = nix.ask("otherLinux", source)

    seen = boot(
        tmp_path / "machine",
        installed=installed,
        units=units,
        model=demo_model,
        only="confinement",
    )
    assert "/etc" in seen["cortex"]["writable_for_root"]
