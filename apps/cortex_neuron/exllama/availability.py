"""Whether an inference library can be used here, found out without importing it.

Imported without its compiled extension, exllamav2 sets out to build one: for half an hour, with a
lock that outlives a killed build. So nothing is imported until a compiled extension is seen.
"""

from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec


def missing(library: str, extension: str, needs: Sequence[str]) -> str | None:
    """Return why `library` cannot be used, None when it can."""
    if absent := [name for name in (library, *needs) if not _is_here(name)]:
        return f"not installed: {', '.join(absent)} (the extra 'cortex[{library}]' has them)"
    spec = find_spec(extension)
    if spec is None or spec.origin is None:
        return (
            f"{library} is installed without its compiled extension {extension}: "
            "install a release wheel for this version of torch, or build it ahead"
        )
    if not spec.origin.endswith(tuple(EXTENSION_SUFFIXES)):
        return f"{extension} is at {spec.origin}, which is no compiled extension"
    return None


def _is_here(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
