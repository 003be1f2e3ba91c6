"""Reading a node is lenient, ordering something from it is strict."""

import pytest
from pydantic import ValidationError

from cortex_core.wire import Discovery, Health, LoadRequest, ModelInfo

SEED_ROW = {
    "id": "org/m",
    "harness": "candle",
    "status": "loaded",
    "devices": [0],
    "vram_used_mb": None,
}


def test_a_row_of_an_older_node_is_understood() -> None:
    """Absent evidence means servable, and unknown memory stays unknown."""
    row = ModelInfo.model_validate({**SEED_ROW, "brand_new_field": 1})

    assert row.servable.ok
    assert row.vram_used_mb is None
    assert row.in_flight == 0


def test_an_older_discovery_and_health_are_understood() -> None:
    """Fewer fields are fewer facts, not an error."""
    assert Discovery.model_validate({"hostname": "beast", "devices": []}).boot_id is None
    assert Health.model_validate({"uptime_secs": 3, "devices": []}).activation is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model_id": ""},
        {"model_id": 3},
        {"model_id": "m", "surce": "x"},
        {"model_id": "m", "tensor_parallel": 0},
        {"model_id": "m", "devices": "all"},
    ],
)
def test_a_wrong_load_is_refused(body: dict[str, object]) -> None:
    """A typo in an order must not be a silent default."""
    with pytest.raises(ValidationError):
        LoadRequest.model_validate(body)
