"""What is counted without the client library reads as if it had been counted with it."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cortex_gateway.tallies import UNKNOWN, Distribution, Tallies

WHERE = ("model", "node")
ODD = 'a"b\\c\nd'


def exposition(tallies: Tallies) -> str:
    """Return what Prometheus scrapes."""
    registry = CollectorRegistry()
    registry.register(tallies)
    return generate_latest(registry).decode()


def block(text: str, name: str) -> list[str]:
    """Return the lines about one metric, when a series began left out."""
    return [
        line
        for line in text.splitlines()
        if line.startswith((name, f"# HELP {name}", f"# TYPE {name}")) and "_created" not in line
    ]


def theirs(registry: CollectorRegistry, name: str) -> list[str]:
    """Return what the client library says of a metric of its own."""
    return block(generate_latest(registry).decode(), name)


def test_counters_read_as_the_client_librarys() -> None:
    """Names that end in `_total`, help, labels with anything in them, numbers."""
    tallies, registry = Tallies(), CollectorRegistry()
    requests = Counter("cortex_requests_total", "Requests that ended.", WHERE, registry=registry)
    for where, count in (((ODD, "n"), 3), (("m", "n"), 1 << 60), ((UNKNOWN, UNKNOWN), 0)):
        tallies.of(*where).requests = count
        requests.labels(*where).inc(count)

    told = block(exposition(tallies), "cortex_requests_total")
    assert sorted(told) == sorted(theirs(registry, "cortex_requests_total"))
    assert told[:2] == [
        "# HELP cortex_requests_total Requests that ended.",
        "# TYPE cortex_requests_total counter",
    ]


def test_errors_and_decisions_have_labels_of_their_own() -> None:
    """A code for each error, a reason for each decision."""
    tallies, registry = Tallies(), CollectorRegistry()
    errors = Counter(
        "cortex_request_errors_total",
        "Requests that ended in an error, by its code.",
        (*WHERE, "code"),
        registry=registry,
    )
    decisions = Counter(
        "cortex_route_decisions_total",
        "Routing decisions.",
        ("decision", "reason"),
        registry=registry,
    )
    for code, count in (("queue_full", 2), ("client_gone", 1)):
        tallies.of("m", "n").errors[code] = count
        errors.labels("m", "n", code).inc(count)
    for told in (("serve", "affinity"), ("refuse", "no_room"), ("serve", "affinity")):
        tallies.decided(*told)
        decisions.labels(*told).inc()

    for name in ("cortex_request_errors_total", "cortex_route_decisions_total"):
        assert sorted(block(exposition(tallies), name)) == sorted(theirs(registry, name))


NAMES = {
    "duration": ("cortex_request_duration_seconds", "From taking the request to its last byte."),
    "first_token": (
        "cortex_time_to_first_token_seconds",
        "From taking the request to its first token.",
    ),
    "rate": ("cortex_tokens_per_second", "Decoded tokens a second after the first one."),
    "overhead": (
        "cortex_gateway_overhead_seconds",
        "Time the gateway itself spent before it asked the node.",
    ),
}


def test_histograms_read_as_the_client_librarys() -> None:
    """Buckets with their bounds as they are written there, +Inf, sum and count."""
    tallies = Tallies()
    for name, (metric, said) in NAMES.items():
        registry = CollectorRegistry()
        mine: Distribution = getattr(tallies.of("m", ODD), name)
        bounds = list(mine.bounds)
        them = Histogram(metric, said, WHERE, registry=registry, buckets=bounds)
        # Between all bounds, on each of them, below and beyond.
        for value in (0.0, *bounds, *(bound * 1.001 for bound in bounds), 99999.5, 1e-9):
            mine.add(value)
            them.labels("m", ODD).observe(value)

        assert block(exposition(tallies), metric) == theirs(registry, metric)
        assert len(block(exposition(tallies), metric)) == 2 + len(bounds) + 1 + 2


@given(
    st.lists(st.floats(0, 100, allow_nan=False), max_size=20),
    st.lists(st.integers(1, 1000), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_any_values_fall_into_the_buckets_they_should(
    values: list[float], bounds: Sequence[float]
) -> None:
    """Those of the client library, with any bounds."""
    mine = Distribution(bounds)
    registry = CollectorRegistry()
    them = Histogram("x", "x", registry=registry, buckets=bounds)
    for value in values:
        mine.add(value)
        them.observe(value)

    told = {
        sample.labels["le"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "x_bucket"
    }
    assert dict(mine.buckets()) == told
    assert mine.total == registry.get_sample_value("x_sum")


def test_nothing_counted_is_nothing_told() -> None:
    """Names, help and types are there; a parser takes the whole."""
    families = {f.name: f for f in text_string_to_metric_families(exposition(Tallies()))}

    assert {metric for metric, _ in NAMES.values()} <= families.keys()
    assert families["cortex_requests"].type == "counter"
    assert all(f.documentation for f in families.values())


def test_one_tally_for_each_model_on_each_node() -> None:
    """However often it is asked for."""
    tallies = Tallies()
    tallies.of("m", "n").requests += 1
    tallies.of("m", "n").requests += 1
    tallies.of("m", "o").requests += 1

    assert tallies.of("m", "n").requests == 2
    assert tallies.of("m", "n") is not tallies.of("n", "m")


def test_what_is_gone_is_told_no_more() -> None:
    """What nobody knew stays."""
    tallies = Tallies()
    for where in (("m", "n"), ("gone", "n"), ("m", "gone"), (UNKNOWN, UNKNOWN), ("m", UNKNOWN)):
        tallies.of(*where).requests = 1
    tallies.keep({"m"}, {"n"})

    text = exposition(tallies)
    assert "gone" not in text
    assert text.count("cortex_requests_total{") == 3
    assert tallies.totals()["requests"] == 3
