"""What Sanic answers a request through, where its own server would be."""

from typing import Any

from sanic import HTTPResponse
from sanic.http import Stage

from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter

#: Headers that are the connection's business.
_OURS = frozenset({"connection", "content-length", "transfer-encoding"})


class SanicStream:
    """The answer to one request, as Sanic's `Request` and `HTTPResponse` want it."""

    #: The body is there before Sanic hears of the request.
    request_body = None

    def __init__(self, request: ClientRequest) -> None:
        self._connection = request.connection
        self._writer = ClientWriter(request)
        self.stage = Stage.HANDLER
        self.response: Any = None

    def respond(self, response: Any) -> Any:
        """Take the response that will be sent."""
        if self.stage is not Stage.HANDLER:
            raise RuntimeError("the request has been answered")
        self.response, response.stream = response, self
        return response

    async def send(self, data: bytes, end_stream: bool = False) -> None:  # noqa: FBT001, FBT002
        """Send some of the response; the head goes before the first."""
        response, writer = self.response, self._writer
        if self.stage is Stage.IDLE:  # Sanic ends once more what its handler has ended
            return
        if self.stage is Stage.HANDLER:
            headers = _headers(response)
            if end_stream:
                body = data or (response.body if isinstance(response, HTTPResponse) else b"")
                writer.whole(response.status, headers, body or b"")
                self.stage = Stage.IDLE
                return
            writer.open(headers, response.status)
            self.stage = Stage.RESPONSE
        writer.write(data)
        if end_stream:
            writer.end()
            self.stage = Stage.IDLE
        if (taking := writer.enough()) is not None:
            await taking


def _headers(response: Any) -> dict[str, str]:
    told = {str(k).lower(): str(v) for k, v in response.headers.items()}
    if response.content_type and "content-type" not in told:
        told["content-type"] = response.content_type
    return {name: value for name, value in told.items() if name not in _OURS}
