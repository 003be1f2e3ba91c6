"""Run the official SDKs' own tests against a cortex with a real model behind it.

    python -m tests.conformance.sdk_suites              both
    python -m tests.conformance.sdk_suites anthropic    one

The sources of exactly the locked versions are fetched into a temporary folder. Every case passes
or is listed in `expected.toml` with its reason; anything else exits 1, a listed case that passes
included.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tests.conformance.sdk_suites.judging import Case, judge, read_expected, table
from tests.conformance.sdk_suites.running import fetch, install_test_packages, run
from tests.conformance.sdk_suites.suites import ALIASES, SUITES
from tests.demo_model import demo_model_path
from tests.fleet.conversations import entry
from tests.fleet.processes import workbench

EXPECTED = Path(__file__).with_name("expected.toml")
#: Many of the tests let the model talk for as long as it likes: this is how long that is.
CONTEXT = 256


def main(
    sdks: Annotated[list[str] | None, typer.Argument(help="anthropic, openai; or all")] = None,
) -> None:
    """Fetch, run, judge."""
    chosen = [suite for suite in SUITES if not sdks or suite.package in sdks]
    if not chosen:
        raise typer.BadParameter(f"choose among {', '.join(s.package for s in SUITES)}")
    model = demo_model_path()
    models = [
        entry("demo", model, options={"context": CONTEXT}),
        entry("embed", model, capabilities=["embedding"]),
    ]
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="sdk-suites-") as name, workbench(Path(name)) as bench:
        folder = Path(name)
        install_test_packages(folder / "packages")
        cortex = bench.cortex({"n1": bench.neuron().url}, models, dict(ALIASES))
        for suite in chosen:
            typer.echo(f"running the tests of {suite.package}: a minute or two")
            sources = fetch(suite.package, folder)
            cases += run(suite, sources, folder / "packages", cortex.url)
    packages = {suite.package for suite in chosen}
    verdict = judge(cases, [one for one in read_expected(EXPECTED) if one.sdk in packages])
    typer.echo(table(verdict))
    raise typer.Exit(1 if verdict.complaints else 0)


typer.run(main)
