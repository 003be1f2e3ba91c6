"""The `neuron` command."""

import json
import socket
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from cortex_neuron.commands import app


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of `neuron`."""
    result = CliRunner(env=environment).invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_a_good_configuration_is_ok(tmp_path: Path) -> None:
    """The environment wins over the file, and the answer shows it."""
    file = tmp_path / "neuron.toml"
    file.write_text("port = 1\n")
    code, out, _ = run("config", "check", "-c", str(file), NEURON_PORT="4242")

    assert code == 0
    assert f"{file}: ok (listens on 127.0.0.1:4242, default models: 0)" in out


def test_a_folder_that_is_not_there_is_found(tmp_path: Path) -> None:
    """It would offer nothing, silently."""
    file = tmp_path / "neuron.toml"
    file.write_text('model_dirs = ["gguf"]\n')
    code, out, _ = run("config", "check", "-c", str(file), "--json")
    said = json.loads(out)

    assert code == 1
    assert said["findings"] == [f"model_dirs: {tmp_path / 'gguf'}: no such folder"]
    assert said["settings"]["port"] == 13131


def test_a_mistake_is_exit_2(tmp_path: Path) -> None:
    """In a key, and in the name of the file."""
    file = tmp_path / "neuron.toml"
    file.write_text("prot = 1\n")
    code, _, err = run("config", "check", "-c", str(file))

    assert code == 2
    assert "did you mean 'port'?" in err
    assert run("serve", "-c", str(tmp_path / "gone.toml"))[0] == 2


def test_discover_shows_this_machine() -> None:
    """Whatever it is: some device with some memory, in the table as in the JSON."""
    code, out, _ = run("discover")
    said = json.loads(run("discover", "--json")[1])

    assert code == 0
    assert said["hostname"] in out
    assert said["devices"][0]["name"] in out
    assert said["devices"][0]["vram_total_mb"] > 0


def test_a_busy_port_is_a_sentence() -> None:
    """The port, who to look for, and the setting to change; no trace."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "cortex_neuron", "serve", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert f"127.0.0.1:{port} is already in use" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_answers_without_the_heavy_modules() -> None:
    """Completion and scripts call it often: no server, no rich, no settings are imported."""
    program = (
        "import sys\nfrom cortex_neuron.cli import main\nsys.argv = ['neuron', 'version']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'sanic', 'rich', 'httpx', 'xllamacpp', 'cortex_core.settings'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("neuron ")
