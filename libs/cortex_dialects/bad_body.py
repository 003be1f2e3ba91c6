"""The one error that reading a request raises."""


class BadBody(Exception):
    """The request cannot be understood; `code` and `param` say why and where.

    `message` is for the client: it says what is wrong and what may stand there.
    """

    def __init__(
        self, message: str, *, code: str = "invalid_request_body", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
