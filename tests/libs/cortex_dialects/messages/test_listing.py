"""The model list in pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects import BadBody
from cortex_dialects.messages import Listed, page

MODELS = [
    Listed(
        id=f"m{number:02}",
        display_name=f"Model {number}",
        created_at="2023-11-14T22:13:20Z",
        max_input_tokens=8192 if number else None,
    )
    for number in range(25)
]


def test_a_page_has_anthropics_shape() -> None:
    """Twenty models, and whether there are more."""
    first = page(MODELS)

    assert first["data"][0] == {
        "type": "model",
        "id": "m00",
        "display_name": "Model 0",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
        "max_input_tokens": None,
        "max_tokens": None,
    }
    assert first["data"][1]["max_input_tokens"] == 8192
    assert (len(first["data"]), first["has_more"]) == (20, True)
    assert (first["first_id"], first["last_id"]) == ("m00", "m19")
    assert page([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@given(size=st.integers(1, 30))
def test_pages_forwards_and_backwards_hold_every_model_once(size: int) -> None:
    """Whatever their size."""
    forwards: list[str] = []
    after: str | None = None
    while True:
        one = page(MODELS, limit=str(size), after_id=after)
        forwards += [row["id"] for row in one["data"]]
        after = one["last_id"]
        if not one["has_more"]:
            break
    backwards: list[str] = []
    before: str | None = "m24"
    while True:
        one = page(MODELS, limit=str(size), before_id=before)
        backwards = [row["id"] for row in one["data"]] + backwards
        before = one["first_id"]
        if not one["has_more"]:
            break

    assert forwards == [model.id for model in MODELS]
    assert backwards == forwards[:-1]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "٣", "9" * 5000])
def test_a_limit_out_of_bounds_is_refused(limit: str) -> None:
    """As Anthropic has them."""
    with pytest.raises(BadBody):
        page(MODELS, limit=limit)
