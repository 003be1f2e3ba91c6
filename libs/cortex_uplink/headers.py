"""The headers of an answer, looked up without regard to case."""

from collections.abc import Iterator, Mapping, Sequence

#: Names, in small letters, and values, in the order in which they came.
RawHeaders = Sequence[tuple[str, str]]


class Headers(Mapping[str, str]):
    """The headers of an answer. Values of a name that came more than once are joined by commas."""

    def __init__(self, raw: RawHeaders) -> None:
        self.raw = raw
        self._values: dict[str, str] = {}
        for name, value in raw:
            known = self._values.get(name)
            self._values[name] = value if known is None else f"{known}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({self._values!r})"
