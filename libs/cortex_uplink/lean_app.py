"""Sanic with a short way for the routes that carry the traffic.

Sanic tells of every step of a request by signals that nobody here listens to, and runs middleware
around every handler. A route that is `direct` is found in a table, gets its body, and answers by
itself (`ClientWriter`) or returns a response. Every other request takes Sanic's own way.
"""

from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeAlias

from sanic import HTTPResponse, Request, Sanic

Direct: TypeAlias = Callable[[Request], Coroutine[Any, Any, HTTPResponse | None]]


class _Nothing:
    """An awaitable that is done."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]  # an iterator is enough for await


_NOTHING = _Nothing()


class LeanApp(Sanic[Any, Any]):
    """A Sanic app with direct routes, by method and path, and without signals of requests."""

    __slots__ = ("direct",)

    def __init__(self, name: str) -> None:
        super().__init__(name, configure_logging=False)
        self.direct: dict[tuple[str, str], Direct] = {}

    def add_direct_route(self, handler: Direct, path: str, name: str) -> None:
        """Have `handler` answer `POST path`."""
        self.direct["POST", path] = handler
        self.add_route(handler, path, methods=["POST"], name=name)

    def dispatch(self, event: str, **more: Any) -> Any:
        """Tell of what happens to the server; of what happens to a request nobody wants to hear."""
        return _NOTHING if event.startswith("http.") else super().dispatch(event, **more)

    async def handle_request(self, request: Request) -> None:
        """Answer a request."""
        # Sanic too takes a path with slashes behind it for the one without.
        handler = self.direct.get((request.method, request.path.rstrip("/")))
        if handler is None:
            await super().handle_request(request)
            return
        try:
            if request.stream is not None and request.stream.request_body:
                await request.receive_body()  # type: ignore[no-untyped-call]
            response = await handler(request)
            if response is not None:
                sending = await request.respond(response)
                await sending.send(end_stream=True)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # turned into an answer in one place
            await self.handle_exception(request, error)
