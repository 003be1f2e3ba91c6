"""What servers say of themselves, as each of them says it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import dumps

from cortex_neuron.attached.offers import MOST_MODELS, Load, NoModelList, Offer, load_in, offers_in

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 2.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a"} 7.0
"""
SGLANG = b"""\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="a"} 4.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="a"} 1.0
"""
LLAMA_SERVER = b"""\
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 0
"""


@pytest.mark.parametrize(
    ("metrics", "load"),
    [
        (VLLM, Load(5, 7)),
        (SGLANG, Load(4, 1)),
        (LLAMA_SERVER, Load(2, 0)),
        (b"# TYPE other gauge\nother 3\n", None),
        (b"", None),
        (b"vllm:num_requests_running 2\nbroken {{{\n", Load(2, 0)),
        (b"vllm:num_requests_running NaN\n", None),
        (b"\xff\xfe", None),
    ],
)
def test_the_load_of_each_kind_of_server_is_read(metrics: bytes, load: Load | None) -> None:
    """Summed over its engines; what does not tell is unknown and not idle."""
    assert load_in(metrics) == load


def test_models_and_their_contexts_are_read() -> None:
    """For vLLM and SGLang it is `max_model_len`, llama-server has it in `meta`."""
    body = dumps(
        {
            "data": [
                {"id": "a", "max_model_len": 8192},
                {"id": "b", "meta": {"n_ctx": 4096, "n_ctx_train": 131072}},
                {"id": "c", "max_model_len": True},
                {"id": "a", "max_model_len": 16},
                {"id": ""},
                {"id": 5},
                {"id": "x" * 300},
                "d",
            ]
        }
    )

    assert offers_in(body) == (Offer("a", 16), Offer("b", 4096), Offer("c"))


def test_a_list_without_end_is_cut() -> None:
    """A server with ten thousand adapters does not fill the node's list."""
    body = dumps({"data": [{"id": str(number)} for number in range(10_000)]})

    assert len(offers_in(body)) == MOST_MODELS


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data":{}}', b'{"error":"no"}'])
def test_what_is_no_list_of_models_is_refused(body: bytes) -> None:
    """Another service on the port offers nothing."""
    with pytest.raises(NoModelList):
        offers_in(body)


@given(st.binary(max_size=200))
def test_nothing_that_a_server_sends_raises_anything_else(noise: bytes) -> None:
    """Whatever it is."""
    load_in(noise)
    try:
        offers_in(noise)
    except NoModelList:
        return
