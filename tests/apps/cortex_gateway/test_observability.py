"""The dashboard and the alerts ask for series that there are; the exposition is as it should be."""

import json
import re
import signal
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, fake_neuron
from tests.fleet.conversations import CHAT, say
from tests.fleet.processes import Daemon, Workbench, eventually, workbench
from tests.libs.cortex_dialects.streams import HELLO

pytestmark = pytest.mark.fleet

MODEL, OTHER = "org/a", "org/b"
FOLDER = files("cortex_gateway") / "observability"
#: What a node says that knows everything.
HEALTH: dict[str, Any] = {
    "devices": [
        {
            "index": 0,
            "vram_used_mb": 600,
            "vram_free_mb": 300,
            "vram_reserved_mb": 100,
            "utilization_pct": 50.0,
            "temp_c": 61.0,
        }
    ],
    "models": [
        {
            "id": MODEL,
            "in_flight": 1,
            "queue_depth": 2,
            "max_in_flight": 4,
            "max_queue_depth": 64,
            "rejected": 3,
            "tok_s_prefill": 900.0,
            "tok_s_decode": 45.0,
        }
    ],
}
#: What `promtool check metrics` calls an abbreviated unit, and a unit that is none of the base.
ABBREVIATIONS = re.compile(r"(^|_)(s|ms|us|ns|sec|b|kb|mb|gb|tb|pb|m|h|d)(_|$)")
OTHER_UNITS = re.compile(r"(milli|micro|kilo|mega|giga)|minutes|hours|days|bits|percent|fahrenheit")
TYPES = re.compile(r"counter|gauge|histogram|summary")
OF_KEYS = {
    "cortex_key_requests_total": {"key"},
    "cortex_key_tokens_total": {"key", "kind"},
    "cortex_key_in_flight": {"key"},
    "cortex_access_refusals_total": {"key", "reason"},
}
WORDS = frozenset({"and", "or", "unless", "by", "without", "on", "ignoring", "bool"})


class Asked(NamedTuple):
    """What an expression asks for: series with the labels it selects by, and labels it keeps."""

    series: dict[str, set[str]]
    kept: set[str] | None


def asked_by(expression: str) -> Asked:
    """Return what a PromQL expression of ours asks for."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\[[^\]]*\]", "", text)
    kept: set[str] | None = None
    for found in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", text):
        kept = (kept or set()) | {one.strip() for one in found.split(",") if one.strip()}
    if kept is None and re.search(r"\b(?:sum|absent|max|min|avg)\s*\(", text):
        kept = set()
    text = re.sub(r"\b(?:by|without)\s*\([^)]*\)", "", text)
    series: dict[str, set[str]] = {}
    for name, selector in re.findall(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?![\w(])", text):
        if name in WORDS or re.search(rf"\b{name}\s*\(", text):
            continue
        series.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
    return Asked(series, kept)


@pytest.fixture(scope="module")
def cortex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Workbench]]:
    """A gateway that has seen everything: answers, failures, a load that made another leave."""
    node = FakeNeuron(total_mb=1000, sizes={MODEL: 600, OTHER: 600}, health=HEALTH)
    node.hold(OTHER)
    models = [{"id": one, "harness": "candle", "vram_mb": 600} for one in (MODEL, OTHER)]
    with fake_neuron(node), workbench(tmp_path_factory.mktemp("observability")) as bench:
        made = bench.cortex({"old": node.url}, models, observation={"poll_secs": 0.1})
        assert made.http.post(f"{made.url}{CHAT}", json=say(MODEL)).is_success
        node.reply = lambda handler: handler.stream(HELLO)
        assert made.http.post(f"{made.url}{CHAT}", json=say(MODEL, stream=True)).is_success
        assert made.http.post(f"{made.url}{CHAT}", content=b"{").status_code == 400
        assert made.http.get(f"{made.url}/nothing").status_code == 404
        made.last_event("request.failed")
        yield made, bench


@pytest.fixture
def families(cortex: tuple[Daemon, Workbench]) -> dict[str, Metric]:
    """The real exposition."""
    return exposition(*cortex)


def exposition(daemon: Daemon, bench: Workbench) -> dict[str, Metric]:
    """Return what Prometheus is told, by the name of each series."""
    text = daemon.http.get(bench.metrics_url(daemon)).text
    found = list(text_string_to_metric_families(text))
    assert text.count("# HELP ") == len(found)
    return {one.name: one for one in found}


def labels_of(families: dict[str, Metric]) -> dict[str, set[str]]:
    """Return the labels of every series that there is."""
    told: dict[str, set[str]] = {}
    for family in families.values():
        for sample in family.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    # Without keys there is nothing to tell of them.
    return {**OF_KEYS, **told}


def panels() -> list[tuple[str, str, str]]:
    """Return title, expression and legend of everything that the dashboard draws."""
    board = json.loads((FOLDER / "grafana.json").read_text())
    return [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def alerts() -> list[dict[str, Any]]:
    """Return the rules."""
    yaml = pytest.importorskip("yaml")
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def check(expression: str, families: dict[str, Metric]) -> Asked:
    """Check that an expression asks for nothing that does not exist."""
    asked = asked_by(expression)
    known = labels_of(families)
    assert asked.series, expression
    for name, labels in asked.series.items():
        assert name in known, f"no series {name}: {expression}"
        assert labels <= known[name], f"{name} has no labels {labels - known[name]}"
    everything = set().union(*(known[name] for name in asked.series))
    assert (asked.kept or set()) <= everything, expression
    return asked


def test_every_panel_asks_for_what_there_is(families: dict[str, Metric]) -> None:
    """Series, their labels, and what the legend says of them."""
    drawn = panels()
    assert len(drawn) > 30
    for title, expression, legend in drawn:
        asked = check(expression, families)
        shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
        known = labels_of(families)
        some = set().union(*(known[name] for name in asked.series))
        assert shown <= (some if asked.kept is None else asked.kept), title


def test_the_dashboard_draws_every_series(families: dict[str, Metric]) -> None:
    """What nobody looks at need not be measured."""
    drawn = {name for _, expression, _ in panels() for name in asked_by(expression).series}
    bases = {re.sub(r"_(bucket|total|count|sum)$", "", name) for name in drawn}
    assert set(families) - bases == set()


def test_the_page_names_every_series_and_its_labels(families: dict[str, Metric]) -> None:
    """What it says of a series is what the series says of itself."""
    page = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", page, re.MULTILINE)
    known = labels_of(families)
    told = {}
    for name, kind, labels, said in rows:
        series = f"{name}_count" if kind == "histogram" else name
        assert set(re.findall(r"`(\w+)`", labels)) == known[series], name
        told[re.sub("_total$", "", name)] = (kind, said)
    assert told == {one.name: (one.type, one.documentation) for one in families.values()}


def test_every_panel_has_a_place_of_its_own() -> None:
    """No two overlap, no id is used twice."""
    board = json.loads((FOLDER / "grafana.json").read_text())
    cells = [
        (x, y)
        for panel in board["panels"]
        for spot in [panel["gridPos"]]
        for x in range(spot["x"], spot["x"] + spot["w"])
        for y in range(spot["y"], spot["y"] + spot["h"])
    ]
    assert len(cells) == len(set(cells))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_chooses_by_labels_that_there_are(families: dict[str, Metric]) -> None:
    """Its variables are filled from real series."""
    board = json.loads((FOLDER / "grafana.json").read_text())
    known = labels_of(families)
    queries = [
        one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"
    ]
    assert len(queries) == 2
    for query in queries:
        (found,) = re.findall(r"^label_values\((\w+), (\w+)\)$", query)
        assert found[1] in known[found[0]]


def test_every_alert_asks_for_what_there_is(families: dict[str, Metric]) -> None:
    """And says how bad it is, what it means, and nothing that its series cannot fill in."""
    rules = alerts()
    assert len(rules) > 10
    assert len({rule["alert"] for rule in rules}) == len(rules)
    known = labels_of(families)
    for rule in rules:
        asked = check(rule["expr"], families)
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}
        said = " ".join(rule["annotations"].values())
        shown = set(re.findall(r"\$labels\.(\w+)", said))
        some = set().union(*(known[name] for name in asked.series))
        assert shown <= (some if asked.kept is None else asked.kept), rule["alert"]


@pytest.mark.parametrize(
    "expression",
    ["rate(cortex_nothing_total[5m])", 'cortex_tasks{model="x"}', "sum by (x) (cortex_tasks)"],
)
def test_a_wrong_expression_would_be_noticed(expression: str, families: dict[str, Metric]) -> None:
    """The check itself is one."""
    with pytest.raises(AssertionError):
        check(expression, families)


def test_the_exposition_is_as_promtool_wants_it(families: dict[str, Metric]) -> None:
    """The rules of `promtool check metrics`, written again."""
    for name, family in families.items():
        assert family.documentation, name
        assert re.fullmatch(r"cortex_[a-z0-9_]+", name), name
        for wrong in (ABBREVIATIONS, OTHER_UNITS, TYPES):
            assert not wrong.search(name), name
        assert family.type in {"counter", "gauge", "histogram"}
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z_]+", label) for label in sample.labels)
            assert sample.name.endswith("_total") is (family.type == "counter"), sample.name
            if family.type != "histogram":
                assert not sample.name.endswith(("_bucket", "_count", "_sum", "_created"))
                assert "le" not in sample.labels
            assert "quantile" not in sample.labels
        rows = [(one.name, tuple(sorted(one.labels.items()))) for one in family.samples]
        assert len(rows) == len(set(rows)), name


def test_histograms_are_whole(families: dict[str, Metric]) -> None:
    """Buckets that only grow, up to all of them, and a sum: not a summary's quantiles."""
    histograms = [one for one in families.values() if one.type == "histogram"]
    assert {one.name for one in histograms} == {
        "cortex_request_duration_seconds",
        "cortex_time_to_first_token_seconds",
        "cortex_tokens_per_second",
        "cortex_gateway_overhead_seconds",
    }
    for family in histograms:
        rows: dict[Any, list[float]] = {}
        counts = {}
        for sample in family.samples:
            where = (sample.labels["model"], sample.labels["node"])
            if sample.name.endswith("_bucket"):
                rows.setdefault(where, []).append(sample.value)
            elif sample.name.endswith("_count"):
                counts[where] = sample.value
        for where, values in rows.items():
            assert values == sorted(values)
            assert values[-1] == counts[where]


def test_series_of_what_is_gone_are_removed(bench: Workbench) -> None:
    """A model that left the catalogue and its node, and a node that left the configuration."""
    node, other = FakeNeuron(sizes={MODEL: 600, OTHER: 600}, health=HEALTH), FakeNeuron()
    node.hold(MODEL)
    models = [{"id": one, "harness": "candle", "vram_mb": 600} for one in (MODEL, OTHER)]
    with fake_neuron(node), fake_neuron(other):
        daemon = bench.cortex(
            {"stays": node.url, "leaves": other.url}, models, observation={"poll_secs": 0.1}
        )
        for model in (MODEL, OTHER):
            assert daemon.http.post(f"{daemon.url}{CHAT}", json=say(model)).is_success

        def told(label: str) -> set[str]:
            found = exposition(daemon, bench).values()
            return {one.labels[label] for f in found for one in f.samples if label in one.labels}

        assert {MODEL, OTHER} <= told("model")
        assert {"stays", "leaves"} <= told("node")

        config = bench.folder / "cortex.toml"
        entry = re.compile(r', \{"name" = "leaves", "endpoint" = "[^"]*"\}')
        config.write_text(entry.sub("", config.read_text()))
        (bench.folder / "models.toml").write_text(
            f'models = [{{ id = "{MODEL}", vram_mb = 600 }}]\n'
        )
        node.resident.pop(OTHER, None)
        daemon.signal(signal.SIGHUP)

        eventually(lambda: "leaves" not in told("node") and OTHER not in told("model"))
        assert MODEL in told("model")
