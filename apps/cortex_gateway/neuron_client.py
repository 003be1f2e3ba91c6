"""Control calls to one node: short, bounded, and lenient about what older nodes leave out."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from cortex_core.settings import NeuronEntry
from cortex_core.wire import Discovery, Health, LoadAnswer, LoadRequest, ModelInfo, Residency

_Model = TypeVar("_Model", bound=BaseModel)
_ROWS = TypeAdapter(tuple[ModelInfo, ...])
_REFUSES_THE_PROMPT = frozenset({400, 413, 422})


class NodeError(Exception):
    """The node cannot be used. `status` and `body` are set when it answered with an error."""

    def __init__(self, message: str, *, status: int | None = None, body: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body

    @property
    def code(self) -> str | None:
        """The code in the node's error envelope; old nodes have a bare string there."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return error.get("code") if isinstance(error, dict) else None

    @property
    def detail(self) -> dict[str, Any]:
        """The node's error object, empty when there is none."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return error if isinstance(error, dict) else {"message": str(error or "")}


class NeuronClient:
    """One node's control routes."""

    def __init__(
        self,
        entry: NeuronEntry,
        http: httpx.AsyncClient,
        timeout_secs: float,
        headers: Mapping[str, str],
    ) -> None:
        self._entry = entry
        self._headers = dict(headers)
        self._http = http
        self._timeout = timeout_secs

    async def discovery(self) -> Discovery:
        """Return `GET /discovery`."""
        return _parse(Discovery, await self._json("GET", "/discovery"))

    async def health(self) -> Health:
        """Return `GET /health`."""
        return _parse(Health, await self._json("GET", "/health"))

    async def models(self) -> tuple[ModelInfo, ...]:
        """Return `GET /models`."""
        try:
            return _ROWS.validate_python(await self._json("GET", "/models"))
        except ValidationError as error:
            raise NodeError(f"GET /models: not what a node says: {error}") from error

    async def load(self, request: LoadRequest, timeout_secs: float) -> LoadAnswer:
        """Ask for a load. A node that answers only when it is done gets `timeout_secs`."""
        # Left out where it says nothing, so that nodes of other versions understand the rest.
        unsaid = {"residency"} if request.residency == Residency() else set()
        body = request.model_dump(mode="json", exclude_none=True, exclude=unsaid)
        value = await self._json("POST", "/models/load", body=body, timeout_secs=timeout_secs)
        return _parse(LoadAnswer, value)

    async def unload(self, model: str, drain_secs: float) -> None:
        """Ask for an unload and wait until it is done."""
        body = {"model_id": model, "drain_secs": drain_secs}
        await self._json("POST", "/models/unload", body=body, timeout_secs=drain_secs + 60)

    async def capabilities(self, model: str) -> tuple[str, ...] | None:
        """Return what the node knows that `model` can do, None without local evidence."""
        try:
            value = await self._json("GET", f"/models/{quote(model, safe='')}/capabilities")
        except NodeError as error:
            if error.status is not None:
                return None
            raise
        found = value.get("capabilities") if isinstance(value, dict) else None
        return tuple(found) if found else None

    async def tokenize(self, body: dict[str, Any], timeout_secs: float) -> int | None:
        """Return how many tokens a prompt has, None when the node cannot tell.

        Raises NodeError with its status when the node refuses the prompt itself.
        """
        try:
            value = await self._json("POST", "/tokenize", body=body, timeout_secs=timeout_secs)
        except NodeError as error:
            if error.status is not None and error.status not in _REFUSES_THE_PROMPT:
                return None
            raise
        count = value.get("count") if isinstance(value, dict) else None
        return count if isinstance(count, int) else None

    @asynccontextmanager
    async def events(
        self, last_event_id: str | None, silence_secs: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open `/events`; NodeError when the node has none."""
        headers = {**self._headers, "accept": "text/event-stream"}
        if last_event_id:
            headers["last-event-id"] = last_event_id
        timeout = httpx.Timeout(self._timeout, read=silence_secs)
        url = f"{self._entry.endpoint}/events"
        try:
            async with self._http.stream("GET", url, headers=headers, timeout=timeout) as response:
                kind = response.headers.get("content-type", "")
                if response.status_code != 200 or "text/event-stream" not in kind:  # noqa: PLR2004
                    raise NodeError("no event stream", status=response.status_code)
                yield response.aiter_raw()
        except httpx.HTTPError as error:
            raise NodeError(f"/events: {type(error).__name__}: {error}") from error

    async def _json(
        self, method: str, path: str, *, body: Any = None, timeout_secs: float | None = None
    ) -> Any:
        url = f"{self._entry.endpoint}{path}"
        timeout = httpx.Timeout(self._timeout, read=timeout_secs or self._timeout)
        try:
            response = await self._http.request(
                method, url, json=body, timeout=timeout, headers=self._headers
            )
        except httpx.HTTPError as error:
            raise NodeError(f"{method} {path}: {type(error).__name__}: {error}") from error
        try:
            value = response.json()
        except ValueError:
            value = None
        if response.status_code >= 400:  # noqa: PLR2004
            raise NodeError(
                f"{method} {path}: HTTP {response.status_code}",
                status=response.status_code,
                body=value,
            )
        if value is None:
            raise NodeError(f"{method} {path}: the answer is not JSON")
        return value


def _parse(model: type[_Model], value: Any) -> _Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise NodeError(f"not a {model.__name__}: {error}") from error
