"""Checks source of ours against a library's table: what it imports, calls, reads and sets.

Types are followed as far as they are said: constructors, annotations of parameters, fields and
results, and attributes of `self`. What cannot be followed is not checked.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.apps.cortex_neuron.exllama.contract.table import Table

#: Dictionaries that the generator's steps give, by what we call them.
_RESULTS = frozenset({"result", "held", "part"})


@dataclass(slots=True)
class Report:
    """What is wrong, one line each, and how many uses were looked at."""

    problems: list[str] = field(default_factory=list)
    checked: int = 0


def check(library: str, table: Table, sources: Mapping[str, str]) -> Report:
    """Return what `sources` (by module name) do that the library does not offer."""
    report = Report()
    trees = {module: ast.parse(text) for module, text in sources.items()}
    ours = _Ours(library, table, trees)
    for module, tree in trees.items():
        _Checker(library, table, ours, module, report).visit(tree)
    return report


class _Ours:
    """What our own modules define: types of fields and of results, by qualified name."""

    def __init__(self, library: str, table: Table, trees: Mapping[str, ast.Module]) -> None:
        self.types: dict[str, str] = {}
        self.classes: set[str] = set()
        for module, tree in trees.items():
            names = imported(tree, module)
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self.classes.add(f"{module}.{node.name}")
        for module, tree in trees.items():
            names = imported(tree, module)
            for node in tree.body:
                if isinstance(node, ast.FunctionDef):
                    self._keep(f"{module}.{node.name}", node.returns, names)
                if isinstance(node, ast.ClassDef):
                    self._class(f"{module}.{node.name}", node, names)

    def _class(self, owner: str, node: ast.ClassDef, names: Mapping[str, str]) -> None:
        for inner in node.body:
            if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                self._keep(f"{owner}.{inner.target.id}", inner.annotation, names)
            if isinstance(inner, ast.FunctionDef):
                self._keep(f"{owner}.{inner.name}", inner.returns, names)
        for base in node.bases:
            if (known := named(base, names)) is not None:
                self.types[f"{owner}.__base__"] = known

    def _keep(self, name: str, annotation: ast.expr | None, names: Mapping[str, str]) -> None:
        for one in _parts(annotation):
            if (known := named(one, names)) is not None:
                self.types.setdefault(name, known)


class _Checker(ast.NodeVisitor):
    def __init__(
        self, library: str, table: Table, ours: _Ours, module: str, report: Report
    ) -> None:
        self._library, self._table, self._ours = library, table, ours
        self._module, self._report = module, report
        self._names: dict[str, str] = {}
        self._variables: dict[str, str] = {}
        self._self: str | None = None

    def visit_Module(self, node: ast.Module) -> None:
        self._names = imported(node, self._module)
        for one in ast.walk(node):
            if isinstance(one, ast.ImportFrom) and (one.module or "").startswith(self._library):
                for alias in one.names:
                    self._report.checked += 1
                    if f"{one.module}.{alias.name}" not in self._table.calls:
                        self._wrong(one, f"there is no {one.module}.{alias.name}")
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._self = self._self, f"{self._module}.{node.name}"
        for base in node.bases:
            known = named(base, self._names)
            for inner in node.body:
                if known in self._table.attributes and isinstance(inner, ast.FunctionDef):
                    self._overrides(f"{known}.{inner.name}", inner)
        self.generic_visit(node)
        self._self = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = dict(self._variables)
        for one in (*node.args.args, *node.args.kwonlyargs):
            for part in _parts(one.annotation):
                if (known := named(part, self._names)) is not None:
                    self._variables[one.arg] = known
        self.generic_visit(node)
        self._variables = outer

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        if (known := self._type(node.value)) is not None:
            for target in node.targets:
                if isinstance(target, ast.Name):
                    self._variables[target.id] = known
                elif self._self is not None and ast.unparse(target).startswith("self."):
                    self._ours.types.setdefault(f"{self._self}.{ast.unparse(target)[5:]}", known)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            for part in _parts(node.annotation):
                if (known := named(part, self._names)) is not None:
                    self._variables[node.target.id] = known

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self._callee(node.func)
        if called not in self._table.calls:
            return
        self._report.checked += 1
        if any(isinstance(one, ast.Starred) for one in node.args):
            return
        parameters = self._table.calls[called]
        keywords = {one.arg for one in node.keywords if one.arg is not None}
        known = [one.rstrip("=") for one in parameters]
        problems = [f"no parameter {name!r}" for name in sorted(keywords - set(known))]
        if len(node.args) > len(known) and not any(one.startswith("*") for one in known):
            problems.append("too many arguments")
        given = keywords | set(known[: len(node.args)])
        problems += [
            f"{one!r} is missing"
            for one in parameters
            if not one.endswith("=") and not one.startswith("*") and one not in given
        ]
        for problem in problems:
            self._wrong(node, f"{called}: {problem}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self._type(node.value) or named(node.value, self._names)
        if owner in self._table.attributes:
            self._report.checked += 1
            inner = f"{owner}.{node.attr}"
            if node.attr not in self._table.attributes[owner] and inner not in self._table.calls:
                self._wrong(node, f"{owner} has no {node.attr!r}")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        self._result_key(node, node.value, node.slice)

    def visit_Compare(self, node: ast.Compare) -> None:
        self.generic_visit(node)
        if isinstance(node.ops[0], ast.In):
            self._result_key(node, node.comparators[0], node.left)

    def _result_key(self, node: ast.AST, of: ast.expr, key: ast.expr) -> None:
        if isinstance(of, ast.Name) and of.id in _RESULTS and isinstance(key, ast.Constant):
            self._report.checked += 1
            if key.value not in self._table.results:
                self._wrong(node, f"no result has {key.value!r}")

    def _overrides(self, name: str, node: ast.FunctionDef) -> None:
        if name not in self._table.calls or node.name == "__init__":
            return
        self._report.checked += 1
        ours = [one.arg for one in node.args.args[1:]]
        theirs = [one.rstrip("=") for one in self._table.calls[name]]
        if ours != theirs:
            self._wrong(node, f"{name} takes {theirs}, not {ours}")

    def _callee(self, func: ast.expr) -> str | None:
        """Return the library's name of what is called."""
        if (known := named(func, self._names)) in self._table.calls:
            return known
        if isinstance(func, ast.Attribute):
            if ast.unparse(func) == "super().__init__" and self._self is not None:
                return self._ours.types.get(f"{self._self}.__base__")
            owner = self._type(func.value) or named(func.value, self._names)
            return None if owner is None else f"{owner}.{func.attr}"
        return None

    def _type(self, node: ast.expr) -> str | None:
        """Return the class of what an expression gives, where that is said somewhere."""
        match node:
            case ast.Name("self"):
                return self._self
            case ast.Name(name):
                return self._variables.get(name)
            case ast.Attribute(value, attribute):
                owner = self._type(value)
                return None if owner is None else self._ours.types.get(f"{owner}.{attribute}")
            case ast.IfExp(_, body, orelse):
                return self._type(body) or self._type(orelse)
            case ast.Call(func):
                known = named(func, self._names)
                if known in self._table.attributes or known in self._ours.classes:
                    return known
                if known is not None:
                    return self._ours.types.get(known)
                if isinstance(func, ast.Attribute):
                    owner = self._type(func.value)
                    return None if owner is None else self._ours.types.get(f"{owner}.{func.attr}")
        return None

    def _wrong(self, node: ast.AST, problem: str) -> None:
        line = getattr(node, "lineno", 0)
        self._report.problems.append(f"{self._module}:{line}: {problem}")


def imported(tree: ast.Module, module: str) -> dict[str, str]:
    """Return what each name of a module stands for, its own definitions included."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = f"{module}.{node.name}"
    return names


def named(node: ast.expr, names: Mapping[str, str]) -> str | None:
    """Return the qualified name that an expression spells."""
    match node:
        case ast.Constant(str(text)):
            return names.get(text)
        case ast.Name(name):
            return names.get(name)
        case ast.Attribute(value, attribute):
            owner = named(value, names)
            return None if owner is None else f"{owner}.{attribute}"
    return None


def _parts(annotation: ast.expr | None) -> list[ast.expr]:
    """Return the alternatives of an annotation; of `list[X]` the X is not one."""
    match annotation:
        case None:
            return []
        case ast.BinOp(left, ast.BitOr(), right):
            return [*_parts(left), *_parts(right)]
    return [annotation]
