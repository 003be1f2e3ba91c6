"""The content of input items: text, and what is not text."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from cortex_dialects.bad_body import BadBody
from cortex_dialects.responses.fields import name_of, object_of

_TEXT_FIELDS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "summary_text": "text",
    "reasoning_text": "text",
}


class Content(NamedTuple):
    """The parts of a content in their order, as chat completions have them."""

    parts: list[dict[str, Any]]

    @property
    def texts(self) -> list[str]:
        """The texts alone."""
        return [part["text"] for part in self.parts if part["type"] == "text"]

    @property
    def media(self) -> list[dict[str, Any]]:
        """The parts that are not text."""
        return [part for part in self.parts if part["type"] != "text"]


def read_content(value: Any, where: str) -> Content:
    """Return a content: a string, parts, or nothing. Unknown parts are left out. Raises BadBody."""
    if value is None:
        return Content([])
    if isinstance(value, str):
        return Content([{"type": "text", "text": value}] if value else [])
    if not isinstance(value, list):
        raise BadBody(f"'{where}' must be a string or an array of parts", param=where)
    return Content(list(_parts(value, where)))


def text_only(value: Any, where: str, separator: str) -> str:
    """Return a content that may hold nothing but text. Raises BadBody."""
    content = read_content(value, where)
    if content.media:
        raise BadBody(
            f"'{where}' may hold text only; images and sound belong to a message of the user",
            code="unsupported_content",
            param=where,
        )
    return separator.join(content.texts)


def _parts(parts: list[Any], where: str) -> Iterator[dict[str, Any]]:
    for position, part in enumerate(parts):
        at = f"{where}[{position}]"
        if isinstance(part, str):
            yield {"type": "text", "text": part}
            continue
        if not isinstance(part, dict):
            raise BadBody(f"'{at}' must be an object", param=at)
        kind = part.get("type")
        if isinstance(kind, str) and (field := _TEXT_FIELDS.get(kind)):
            if isinstance(text := part.get(field), str) and text:
                yield {"type": "text", "text": text}
        elif kind in ("input_image", "image_url"):
            yield _image(part, at)
        elif kind == "input_audio":
            sound = object_of(part, "input_audio", f"{at}.")
            yield {"type": "input_audio", "input_audio": sound or {}}
        elif kind == "input_file":
            raise BadBody(
                f"'{at}' is a file, which cannot be read here; send its text",
                code="unsupported_content",
                param=at,
            )


def _image(part: dict[str, Any], at: str) -> dict[str, Any]:
    said = part.get("image_url")
    if said is None and part.get("file_id") is not None:
        raise BadBody(
            f"'{at}' names an uploaded file, and none are kept here; send the image as a data: URI",
            code="unsupported_content",
            param=f"{at}.file_id",
        )
    source = said if isinstance(said, dict) else {"url": said}
    if said is not source and not isinstance(said, str):
        raise BadBody(
            f"'{at}.image_url' must be a URL, or an object with one", param=f"{at}.image_url"
        )
    image = {"url": name_of(source, "url", f"{at}.image_url.")}
    detail = source.get("detail", part.get("detail"))
    if isinstance(detail, str):
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}
