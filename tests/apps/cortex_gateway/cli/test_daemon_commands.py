"""`cortex config check`, `version` and what `serve` says before it starts."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cortex_core.loading import ConfigError
from cortex_gateway.cli.app import app
from cortex_gateway.cli.configuration import load_configuration

MODELS = '[[models]]\nid = "m"\npinned_on = ["nowhere"]\n'


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of `cortex`."""
    result = CliRunner(env=environment).invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_a_good_configuration_is_ok(tmp_path: Path) -> None:
    """What was counted is said, so that an empty file does not look like a full one."""
    file = tmp_path / "cortex.toml"
    file.write_text('[[neurons]]\nname = "a"\nendpoint = "http://a:1"\n')
    code, out, _ = run("config", "check", "-c", str(file))

    assert code == 0
    assert "ok (neurons: 1, models: 0, aliases: 0)" in out
    assert f"no {tmp_path / 'models.toml'}" in out


def test_a_typo_names_the_nearest_key(tmp_path: Path) -> None:
    """An unknown key is exit 2, on stderr and in the JSON."""
    file = tmp_path / "cortex.toml"
    file.write_text('[gateway]\nlissten = "127.0.0.1:1"\n')
    code, out, err = run("config", "check", "-c", str(file), "--json")

    assert code == 2
    assert "did you mean 'listen'?" in err
    assert json.loads(out) == {"ok": False, "errors": err.splitlines()}


def test_an_unknown_variable_is_an_error(tmp_path: Path) -> None:
    """A typo in the environment stops the start as one in the file does."""
    file = tmp_path / "cortex.toml"
    file.write_text("")
    code, _, err = run("config", "check", "-c", str(file), CORTEX_GATEWAY__LISSTEN="x")

    assert code == 2
    assert "lissten" in err


@pytest.mark.parametrize("command", [("config", "check"), ("serve",)])
def test_a_file_that_was_named_and_is_missing_is_an_error(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Built-in defaults are not what was asked for."""
    code, _, err = run(*command, "-c", str(tmp_path / "gone.toml"))

    assert code == 2
    assert "gone.toml: no such file" in err


def test_what_cannot_work_together_is_found(tmp_path: Path) -> None:
    """A file may be valid and still pin a model to a node that is not there."""
    (tmp_path / "models.toml").write_text(MODELS)
    file = tmp_path / "cortex.toml"
    file.write_text(
        '[gateway]\nmetrics_listen = "127.0.0.1:31313"\n'
        '[[neurons]]\nname = "a"\nendpoint = "http://a:1"\ntoken_file = "a.token"\n'
    )
    code, out, _ = run("config", "check", "-c", str(file), "--json")
    said = json.loads(out)

    assert code == 1
    assert said["findings"] == [
        f"neurons.a.token_file: {tmp_path / 'a.token'}: no such file",
        "models.m.pinned_on: 'nowhere' is not among the neurons",
        "gateway.metrics_listen: 127.0.0.1:31313 is gateway.listen already",
    ]


def test_a_catalogue_that_was_named_must_exist(tmp_path: Path) -> None:
    """The default catalogue may be absent, a named one may not."""
    file = tmp_path / "cortex.toml"
    file.write_text('models_config = "models.toml"\n')

    with pytest.raises(ConfigError, match=r"models\.toml: no such file"):
        load_configuration(file, {})
    with pytest.raises(ConfigError, match=r"other\.toml: no such file"):
        load_configuration(None, {"CORTEX_MODELS_CONFIG": str(tmp_path / "other.toml")})


def test_the_default_catalogue_lies_beside_the_file(tmp_path: Path) -> None:
    """Not in the working directory, which a service does not choose."""
    (tmp_path / "models.toml").write_text(MODELS)
    file = tmp_path / "cortex.toml"
    file.write_text("")
    loaded = load_configuration(file, {})

    assert [entry.id for entry in loaded.catalogue.models] == ["m"]
    assert loaded.settings.models_config == tmp_path / "models.toml"
    assert loaded.notes == ()


def test_version_answers_without_the_heavy_modules() -> None:
    """Completion and scripts call it often: no server, no rich, no settings are imported."""
    program = (
        "import sys\nfrom cortex_gateway.cli import main\nsys.argv = ['cortex', 'version']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'sanic', 'rich', 'httpx', 'cortex_core.settings', 'urllib.request'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cortex ")


def test_every_command_documents_its_exit_codes() -> None:
    """A script's author reads --help, not the source."""
    for command in ("", "serve", "up", "status", "models", "load", "unload", "version"):
        out = run(*([command] if command else []), "--help", COLUMNS="200")[1]
        assert "3 cortex cannot be reached" in out, command


def test_a_busy_port_is_a_sentence(tmp_path: Path) -> None:
    """The port, who to look for, and the setting to change; no trace."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "cortex.toml"
        file.write_text(f'[gateway]\nlisten = "127.0.0.1:0"\nmetrics_listen = "127.0.0.1:{port}"\n')
        done = subprocess.run(
            [sys.executable, "-m", "cortex_gateway", "serve", "-c", str(file)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert f"127.0.0.1:{port} is already in use" in done.stderr
    assert f"set [gateway] metrics_listen in {file}" in done.stderr
    assert "the catalogue is empty" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hangup_reads_the_configuration_again(tmp_path: Path) -> None:
    """A mistake in the new one is said and changes nothing; a SIGTERM ends it with 0."""
    file = tmp_path / "cortex.toml"
    text = '[gateway]\nlisten = "127.0.0.1:0"\nmetrics_listen = "127.0.0.1:0"\n'
    file.write_text(text)
    command = [sys.executable, "-m", "cortex_gateway", "serve", "-c", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        try:
            said = iter(daemon.stderr)
            next(line for line in said if "cortex.ready" in line)
            file.write_text(text + "listn = 1\n")
            daemon.send_signal(signal.SIGHUP)
            rejected = next(line for line in said if "config." in line)
            file.write_text(text + '[[neurons]]\nname = "a"\nendpoint = "http://127.0.0.1:9"\n')
            daemon.send_signal(signal.SIGHUP)
            reloaded = next(line for line in said if "config." in line)
            daemon.terminate()
            for _ in said:
                pass  # its last words: a full pipe would hold it back
            code = daemon.wait(20)
        finally:
            if daemon.poll() is None:
                daemon.kill()

    assert "config.rejected" in rejected
    assert "did you mean 'listen'?" in rejected
    assert json.loads(reloaded)["neurons"] == ["a"]
    assert code == 0
