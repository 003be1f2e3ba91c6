"""What happens in the VM test of the fleet: a gateway, and the nodes atlas and hermes."""

# The driver of the test runs this with its machines among the names, and is no part of ours.
# ruff: noqa: ANN001, ANN003, ANN201, F821, INP001, PLR2004, S101

import json
import shlex

ASK = "curl --silent --show-error --fail-with-body --max-time 300 --no-buffer"


def ask(model, **more):
    """Return the command that asks the gateway a question."""
    body = {
        "model": model,
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "Say hello."}],
        **more,
    }
    return (
        f"{ASK} http://127.0.0.1:31313/v1/chat/completions "
        f"--header 'content-type: application/json' --data {shlex.quote(json.dumps(body))}"
    )


def loaded(name):
    """Return the ids of the models that a node has loaded, as the gateway sees it."""
    fleet = json.loads(gateway.succeed(f"{ASK} http://127.0.0.1:31313/v1/models"))
    return {
        model["id"]
        for model in fleet["data"]
        for place in model.get("locations", [])
        if (place["node"], place["status"]) == (name, "loaded")
    }


def healthy(status="ok"):
    """Wait until the gateway says so of the fleet."""
    gateway.wait_until_succeeds(
        f'{ASK} http://127.0.0.1:31313/health | grep --quiet \'"status":"{status}"\'', timeout=120
    )


start_all()
gateway.wait_for_unit("cortex.service")
gateway.wait_for_open_port(31313)
for machine in (atlas, hermes):
    machine.wait_for_unit("neuron.service")
    machine.wait_for_open_port(13131)
healthy()

with subtest("a first request loads its model where it belongs"):
    answer = json.loads(gateway.succeed(ask("first")))
    assert answer["usage"]["completion_tokens"] > 0, answer
    assert loaded("atlas") == {"first"}, loaded("atlas")
    assert loaded("hermes") == set(), loaded("hermes")

with subtest("another model makes room for itself"):
    gateway.succeed(ask("second"))
    assert "second" in loaded("atlas"), loaded("atlas")
    assert "first" not in loaded("atlas"), loaded("atlas")

with subtest("an alias reaches the other node, and its answer streams"):
    stream = gateway.succeed(ask("gpt-4o", stream=True))
    assert stream.count("data: ") > 3, stream
    assert stream.rstrip().endswith("data: [DONE]"), stream
    assert "third" in loaded("hermes"), loaded("hermes")

with subtest("a node that goes away is missed, and its models are 503 until it is back"):
    atlas.shutdown()
    healthy("degraded")
    gateway.succeed(ask("third"))
    atlas.start()
    atlas.wait_for_unit("neuron.service")
    healthy()
    gateway.succeed(ask("first"))

with subtest("a change of the configuration is a reload"):
    before = gateway.succeed("systemctl show --property=MainPID cortex.service")
    gateway.succeed("systemctl reload cortex.service")
    assert gateway.succeed("systemctl show --property=MainPID cortex.service") == before
    gateway.succeed(ask("third"))

with subtest("nothing went wrong on the way"):
    for machine, unit in ((gateway, "cortex"), (atlas, "neuron"), (hermes, "neuron")):
        machine.fail(f"journalctl --unit {unit}.service | grep --ignore-case traceback")
