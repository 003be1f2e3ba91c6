"""JSON strings with every character escaped, as some engines write them."""


def escaped(text: str) -> str:
    r"""Return a text as a JSON string of nothing but `\u` escapes."""
    units = text.encode("utf-16-be").hex()
    return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'
