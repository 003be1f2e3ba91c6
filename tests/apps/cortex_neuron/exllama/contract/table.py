"""What a library offers, read from its source: no import, so neither torch nor CUDA is needed.

A table has three parts. `calls`: for everything that can be called, its parameters in order, `=`
behind those that may be left out (`**kwargs` is left out: exllamav2 swallows misspelt names in it).
`attributes`: for every class, what can be read of an instance or set on it. `results`: the keys of
the dictionaries that the generator's steps give.
"""

import ast
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Definition: TypeAlias = ast.FunctionDef | ast.ClassDef

#: Where the dictionaries are made that `iterate` gives.
_RESULTS = ("receive_sample", "prefill", "iterate_start_jobs", "reap_failed_job")


@dataclass(slots=True)
class Table:
    """The parts; qualified names are the public ones."""

    calls: dict[str, list[str]] = field(default_factory=dict)
    attributes: dict[str, list[str]] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)


class Source:
    """The parsed modules of one package. Functions named `results` make the generator's results."""

    def __init__(self, root: Path, results: Collection[str] = _RESULTS) -> None:
        self._results = results
        self.name = root.name
        self.modules: dict[str, ast.Module] = {}
        self._packages: set[str] = set()
        self._definitions: dict[str, Definition] = {}
        for path in sorted(root.rglob("*.py")):
            parts = (root.name, *path.relative_to(root).with_suffix("").parts)
            name = ".".join(part for part in parts if part != "__init__")
            if path.name == "__init__.py":
                self._packages.add(name)
            self.modules[name] = ast.parse(path.read_text(encoding="utf-8"))
            self._scan(self.modules[name].body, name)

    def table(self, names: Sequence[str]) -> Table:
        """Return the table of the public `names`, and of all methods of classes among them."""
        table = Table()
        for name in names:
            found = self._resolve(name)
            if found is None:
                self._variable(name)
                table.calls[name] = []
                continue
            if isinstance(self._definitions[found], ast.ClassDef):
                self._add_class(table, name, found)
            else:
                table.calls[name] = _parameters(self._definitions[found], bound=False)
        for found, definition in self._definitions.items():
            if found.rpartition(".")[2] in self._results:
                table.results += _keys(definition)
        table.results = sorted(set(table.results))
        return table

    def _add_class(self, table: Table, name: str, found: str) -> None:
        attributes: set[str] = set()
        for owner in reversed([*self._lineage(found)]):
            node = self._definitions[owner]
            assert isinstance(node, ast.ClassDef)
            attributes |= _attributes(node)
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    bound = not any(
                        ast.unparse(one) == "staticmethod" for one in inner.decorator_list
                    )
                    table.calls[f"{name}.{inner.name}"] = _parameters(inner, bound=bound)
                elif isinstance(inner, ast.ClassDef):
                    self._add_class(table, f"{name}.{inner.name}", f"{owner}.{inner.name}")
            if any("dataclass" in ast.unparse(one) for one in node.decorator_list):
                table.calls[f"{name}.__init__"] = [
                    f"{one.target.id}{'' if one.value is None else '='}"
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                ]
        table.calls[name] = table.calls.pop(f"{name}.__init__", [])
        table.attributes[name] = sorted(attributes)

    def _lineage(self, found: str) -> Iterator[str]:
        """Yield a class and the classes of this package that it inherits from."""
        yield found
        node = self._definitions[found]
        assert isinstance(node, ast.ClassDef)
        for base in node.bases:
            other = self._resolve(f"{found.rpartition('.')[0]}.{ast.unparse(base)}")
            if other is not None:
                yield from self._lineage(other)

    def _resolve(self, name: str, depth: int = 0) -> str | None:
        """Return where a public name is defined, through what modules import from each other."""
        if name in self._definitions:
            return name
        module, _, attribute = name.rpartition(".")
        if depth > 6 or module not in self.modules:
            return None
        for node in self.modules[module].body:
            if not isinstance(node, ast.ImportFrom):
                continue
            origin = node.module or ""
            if node.level:
                parts = module.split(".")
                up = node.level - (module in self._packages)
                origin = ".".join([*parts[: len(parts) - up], *filter(None, [origin])])
            for alias in node.names:
                if (alias.asname or alias.name) in (attribute, "*"):
                    wanted = attribute if alias.name == "*" else alias.name
                    if found := self._resolve(f"{origin}.{wanted}", depth + 1):
                        return found
        return None

    def _variable(self, name: str) -> None:
        """Raise LookupError unless a module has a variable of that name."""
        module, _, attribute = name.rpartition(".")
        for node in ast.walk(self.modules.get(module, ast.Module([], []))):
            if isinstance(node, ast.Name) and node.id == attribute:
                return
        raise LookupError(f"{self.name} has no {name}")

    def _scan(self, body: Sequence[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self._definitions[f"{prefix}.{node.name}"] = node
                if isinstance(node, ast.ClassDef):
                    self._scan(node.body, f"{prefix}.{node.name}")
            elif isinstance(node, ast.If | ast.Try):
                self._scan(node.body, prefix)


def _parameters(node: Definition, *, bound: bool) -> list[str]:
    assert isinstance(node, ast.FunctionDef)
    said = node.args
    names = [one.arg for one in (*said.posonlyargs, *said.args)]
    optional = len(names) - len(said.defaults)
    found = [f"{name}{'=' if at >= optional else ''}" for at, name in enumerate(names)]
    if bound and found and found[0].rstrip("=") in ("self", "cls"):
        found = found[1:]
    if said.vararg is not None:
        found.append(f"*{said.vararg.arg}")
    for one, default in zip(said.kwonlyargs, said.kw_defaults, strict=True):
        found.append(f"{one.arg}{'' if default is None else '='}")
    return found


def _attributes(node: ast.ClassDef) -> set[str]:
    found = {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    found |= {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
    for assigned in ast.walk(node):
        match assigned:
            case ast.Attribute(ast.Name("self"), attribute, ast.Store()):
                found.add(attribute)
    return found


def _keys(node: Definition) -> Iterator[str]:
    for one in ast.walk(node):
        for key in one.keys if isinstance(one, ast.Dict) else ():
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value
