"""Other names of models: exact ones, and patterns such as `claude-*`.

An exact alias goes before a model of the same name, a model before every pattern, and of two
patterns the one that says more. A target may say `*` too and then takes over what the pattern's
star stood for: `"local/*" = "*"` offers every model under a second name.
"""

from collections.abc import Callable, Mapping
from typing import Final

STAR: Final = "*"


def resolve(aliases: Mapping[str, str], name: str, known: Callable[[str], bool]) -> str:
    """Return the model that `name` stands for, `name` itself where no alias says otherwise."""
    if not aliases:
        return name
    exact = aliases.get(name)
    if exact is not None:
        return exact
    if known(name):
        return name
    found = [
        (len(pattern), pattern, model)
        for pattern, target in aliases.items()
        if (stood_for := matched(pattern, name)) is not None
        and (known(model := target.replace(STAR, stood_for)) or STAR not in target)
    ]
    return max(found)[2] if found else name


def matched(pattern: str, name: str) -> str | None:
    """Return what the pattern's star stands for in `name`, None where it does not match."""
    before, star, after = pattern.partition(STAR)
    if not star or len(name) <= len(before) + len(after):
        return None
    if not name.startswith(before) or not name.endswith(after):
        return None
    return name[len(before) : len(name) - len(after)]


def listed(aliases: Mapping[str, str], models: Mapping[str, object]) -> dict[str, str]:
    """Return every other name that can be shown, with its model.

    A pattern with a model as its target is shown as the pattern with the model's name for its star:
    a name that clients may ask for like any other.
    """
    names: dict[str, str] = {}
    for alias, target in aliases.items():
        targets = list(models) if target == STAR else [target]
        for model in targets:
            name = alias.replace(STAR, model)
            if name not in models:
                names.setdefault(name, model)
    return {
        name: model
        for name, model in names.items()
        if model in models and resolve(aliases, name, models.__contains__) == model
    }
