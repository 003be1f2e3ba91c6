"""One look at a server: is it well, what does it offer, how busy is it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from cortex_neuron.attached.offers import Load, NoModelList, Offer, load_in, offers_in
from cortex_uplink import Limits, Uplink, UplinkError
from cortex_uplink.errors import ConnectFailed, RequestRefused

_LIMITS = Limits(connect=2.0, first_byte=3.0, idle=3.0)
_MOST_BYTES = 4 << 20


class State(StrEnum):
    """What is known of a server."""

    UNSEEN = "unseen"
    UP = "up"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    UNAUTHORIZED = "unauthorized"
    UNWELL = "unwell"


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen: offers where it is up, else why it is not."""

    state: State
    detail: str = ""
    offers: tuple[Offer, ...] = ()
    load: Load | None = None


async def look(uplink: Uplink, url: str, headers: Mapping[str, str]) -> Look:
    """Look at the server at `url`. Never raises."""
    try:
        health, _ = await _get(uplink, f"{url}/health", headers)
        # Not every server has this route; one that has it knows more than its list of models.
        if health >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Look(State.UNWELL, f"its health is {health}")
        status, body = await _get(uplink, f"{url}/v1/models", headers)
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return Look(State.UNAUTHORIZED, "it does not accept the token of token_file")
        if status != HTTPStatus.OK:
            return Look(State.UNWELL, f"its list of models has status {status}")
        offers = offers_in(body)
        status, metrics = await _get(uplink, f"{url}/metrics", headers)
    except NoModelList as error:
        return Look(State.UNWELL, f"its list of models cannot be read: {error}")
    except (ConnectFailed, RequestRefused) as error:
        return Look(State.UNREACHABLE, str(error))
    except UplinkError as error:
        return Look(State.SILENT, str(error))
    return Look(State.UP, offers=offers, load=load_in(metrics) if status == HTTPStatus.OK else None)


async def _get(uplink: Uplink, url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    async with uplink.open(url, body=b"", headers=headers, method="GET", limits=_LIMITS) as answer:
        return answer.status, await answer.read(_MOST_BYTES)
