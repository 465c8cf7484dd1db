"""What a function's result depends on in the kit's code, as one hash.

The source is read, never run. From a definition, every name that it takes from its module is followed to the definition
of that name, in this module or in the one that it is imported from, as long as that one is the kit's. A constant of a
module is a definition too; and whatever a module does when it is imported, besides defining names, counts with each of
its definitions. Comments, docstrings and layout do not count, nor do definitions that are not reached.

What is looked up while the program runs is not seen: a method is followed as part of a class that is named, a module
that is imported by a string is not followed at all. Engines are such a case, and have an entry of their own in the keys
of goldens.
"""

import ast
import hashlib
import symtable
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from grader.sandbox.isolation import KIT

Definition = tuple[str, str]
"""A module of the kit, and a name that it defines."""


class Sources:
    """The kit's modules below a root, each read once."""

    def __init__(self, root: Path = KIT):
        self.root = root
        self._modules: dict[str, _Module | None] = {}

    def digest(self, module: str, name: str | None = None) -> str:
        """Return a hash of a definition, or of all those of a module, with what they depend on in the kit.

        Raises LookupError when the module or the name is not there.
        """
        hashed = hashlib.sha256()
        for definition in sorted(self.reached(module, name)):
            hashed.update("\0".join((*definition, *self._texts(definition))).encode())
        return hashed.hexdigest()

    def reached(self, module: str, name: str | None = None) -> set[Definition]:
        """Return all definitions that `digest` hashes; ("module", "") stands for what it does when it is imported."""
        reached: set[Definition] = set()
        waiting = [self._resolve(module, name)] if name is not None else list(self._follow_import(module, None, []))
        if not any(waiting):
            raise LookupError(f"expected {name or 'definitions'} in the module {module} below {self.root}, found none")
        while waiting:
            definition = waiting.pop()
            if definition is None or definition in reached:
                continue
            reached.add(definition)
            waiting.append((definition[0], ""))
            source = self._module(definition[0])
            assert source is not None
            for statement in source.statements(definition[1]):
                for path in source.names_in(statement):
                    waiting += self._follow(source, path, _imports(statement, source.package))
        return reached

    def _texts(self, definition: Definition) -> list[str]:
        """Return a definition's statements, and where the names in them are imported from, be it the kit or not."""
        source = self._module(definition[0])
        assert source is not None
        statements = source.statements(definition[1])
        names = {path[0] for statement in statements for path in source.names_in(statement)} & set(source.imports)
        imports = [f"{name} from {source.imports[name]}" for name in sorted(names)]
        return [*imports, *(ast.unparse(statement) for statement in statements)]

    def _follow(
        self, source: "_Module", path: tuple[str, ...], local: dict[str, tuple[str, str | None]]
    ) -> Iterator[Definition | None]:
        """Yield what a name with the attributes after it, like ("scoring", "entropy"), may stand for."""
        first, *rest = path
        if first not in local and source.defines(first):
            yield source.name, first
        if imported := local.get(first) or source.imports.get(first):
            yield from self._follow_import(*imported, rest)
        elif not source.defines(first):
            yield from (self._resolve(star, first) for star in source.stars)

    def _follow_import(self, module: str, name: str | None, attributes: list[str]) -> Iterator[Definition | None]:
        while True:
            if name is not None and self._module(f"{module}.{name}") and not self._defines(module, name):
                module, name = f"{module}.{name}", None  # from package import module
            if name is not None or not attributes:
                break
            name, attributes = attributes[0], attributes[1:]
        if name is not None:
            yield self._resolve(module, name)
        elif source := self._module(module):  # as a value: whoever gets it may call anything in it
            yield from ((module, defined) for defined in source.names)

    def _resolve(self, module: str, name: str) -> Definition | None:
        """Return where a name that a module offers is defined, or None when that is outside the kit."""
        source = self._module(module)
        if source is None:
            return None
        if name == "" or source.defines(name):
            return module, name
        if name in source.imports:
            return next(iter(self._follow(source, (name,), {})), None)
        return next((found for star in source.stars if (found := self._resolve(star, name))), None)

    def _defines(self, module: str, name: str) -> bool:
        source = self._module(module)
        return source is not None and (source.defines(name) or name in source.imports)

    def _module(self, name: str) -> "_Module | None":
        if name not in self._modules:
            path = self.root.joinpath(*name.split("."))
            files = [path.with_suffix(".py"), path / "__init__.py"]
            file = next((file for file in files if file.is_file()), None)
            self._modules[name] = _Module(name, file) if file else None
        return self._modules[name]


class _Module:
    """A file's top-level statements by the names that they define."""

    def __init__(self, name: str, file: Path):
        self.name = name
        self.package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        self._tree = _without_docstrings(ast.parse(file.read_text(encoding="utf-8")))
        self._names: dict[ast.stmt, set[tuple[str, ...]]] = {}

    @cached_property
    def imports(self) -> dict[str, tuple[str, str | None]]:
        """Return the imported names: the module that each comes from, and its name there (None for a module)."""
        return _imports(self._tree, self.package)

    @cached_property
    def stars(self) -> list[str]:
        """Return the modules of which everything is imported."""
        return [
            _absolute(node, self.package)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        ]

    @property
    def names(self) -> list[str]:
        """Return the names that are defined here, and "" where something else is done."""
        return list(self._definitions)

    def defines(self, name: str) -> bool:
        return name in self._definitions

    def statements(self, name: str) -> list[ast.stmt]:
        """Return the statements that define a name; for "" those that do something else than define names."""
        return self._definitions.get(name, [])

    def names_in(self, statement: ast.stmt) -> set[tuple[str, ...]]:
        """Return the names that one of the statements takes from its module."""
        if statement not in self._names:
            self._names[statement] = _names(statement)
        return self._names[statement]

    @cached_property
    def _definitions(self) -> dict[str, list[ast.stmt]]:
        definitions: dict[str, list[ast.stmt]] = {}
        for statement in self._tree.body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                continue
            for name in _defined(statement) or [""]:
                definitions.setdefault(name, []).append(statement)
        return definitions


def _defined(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement binds; what it has inside an `if` or a `try` too."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    table = symtable.symtable(ast.unparse(statement), "statement", "exec")
    return {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_namespace()}


def _names(statement: ast.stmt) -> set[tuple[str, ...]]:
    """Return the names that a statement takes from its module, each with the attributes that follow it at once."""
    text = ast.unparse(statement)
    free: set[str] = set()
    tables = [symtable.symtable(text, "statement", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        free |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() or symbol.is_imported()}
        if table.get_type() == "module":
            free |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    return {path for path in _paths(statement) if path[0] in free}


def _paths(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield each name below a node, with the attributes that follow it at once."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id, *attributes
    for child in ast.iter_child_nodes(node):
        yield from _paths(child)


def _imports(tree: ast.AST, package: str) -> dict[str, tuple[str, str | None]]:
    found: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or module] = (module, None)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = (_absolute(node, package), alias.name)
    return found


def _absolute(node: ast.ImportFrom, package: str) -> str:
    parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join([*parents, *([node.module] if node.module else [])])


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [
                part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ] or [ast.Pass()]
    return tree
