"""Fetch the source distributions that the locked SDKs were built from, and run their tests."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.conformance.sdk_suites.judging import Case, read_report
from tests.conformance.sdk_suites.suites import TEST_PACKAGES, Suite

LOCK = Path(__file__).parents[3] / "requirements-dev.lock"
RUN_SECS = 1800.0
#: The client's settings, ours, and pytest's must not reach the suites.
_FOREIGN = ("ANTHROPIC_", "CORTEX_", "NEURON_", "OPENAI_", "PYTEST_", "PYTHONPATH")


def install_test_packages(folder: Path) -> None:
    """Put what the suites import beside our environment, not into it."""
    _pip("install", "--target", str(folder), "--no-deps", "--only-binary", ":all:", *TEST_PACKAGES)


def fetch(package: str, folder: Path) -> Path:
    """Return the unpacked sources of the locked version, checked against the lock's hashes."""
    wanted = folder / f"{package}.txt"
    wanted.write_text(_locked(package))
    _pip(
        *("download", "--require-hashes", "--no-deps", "--no-binary", package),
        *("--dest", str(folder), "-r", str(wanted)),
    )
    (archive,) = folder.glob(f"{package}-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


def run(suite: Suite, sources: Path, packages: Path, cortex: str) -> list[Case]:
    """Run a suite against a cortex and return its cases."""
    report = sources / "report.xml"
    files = [f"tests/api_resources/{file}.py" for file in suite.files]
    argv = [
        *(sys.executable, "-m", "pytest", "-q", "--tb=line", "--no-summary"),
        *("-p", "no:cacheprovider", "-o", "addopts=", f"--junitxml={report}"),
        *suite.options,
        *files,
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    environment |= {"PYTHONPATH": str(packages), "TEST_API_BASE_URL": cortex + suite.base_path}
    # Which of them fail is for the list to judge: a page of tracebacks would only frighten.
    done = subprocess.run(
        argv,
        cwd=sources,
        env=environment,
        timeout=RUN_SECS,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests of {suite.package} could not be run:\n{done.stdout}")
    return read_report(suite.package, report)


def _locked(package: str) -> str:
    found = re.search(rf"^{package}==(?:.*\\\n)*.*\n", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{package} is not in {LOCK.name}")
    return found[0]


def _pip(*arguments: str) -> None:
    quiet = ("--disable-pip-version-check", "--quiet", "--quiet")
    subprocess.run([sys.executable, "-m", "pip", *quiet, *arguments], check=True)
