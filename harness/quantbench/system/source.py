"""Source: the files that a function really depends on, by its import statements, and their hash.

A key that covers this hash cannot lie about code: whatever module of ours a step's function imports,
directly or through others, at the top or inside a function, changes it; nothing else does. Packages of
others are not followed: their versions are part of the keys.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from quantbench.errors import BadInput

ENGINE = "quantbench"
_LOCATOR = re.compile(rf"({ENGINE}\w*(?:\.\w+)+):\w+(?:\(.*\))?", re.DOTALL)


@cache
def source_digest(*names: str) -> str:
    """Hash of all source that modules or locators depend on.

    Parameters
    ----------
    names
        ``package.module`` or a locator, ``package.module:attribute``.

    Raises
    ------
    BadInput
        If there is no such module.
    """
    digest = hashlib.sha256()
    for module, path in sorted(source_files(*names).items()):
        digest.update(module.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def source_files(*names: str) -> Mapping[str, Path]:
    """Module -> file of everything of ours that modules or locators depend on.

    Followed are modules of the same top package (for a lone module: those beside it), and of the
    packages called quantbench. A name that a package's doorway takes from a module of its own leads
    to that module alone.

    >>> sorted(source_files("quantbench.system.locators:locate"))
    ['quantbench.system.locators']
    """
    found: dict[str, Path] = {}
    for name in names:
        root = name.partition(":")[0]
        path = _path(root)
        if path is None:
            raise BadInput(f"no module '{root}'")
        top = root.partition(".")[0]
        beside = path.parent if "." not in root and path.name != "__init__.py" else None
        if beside is not None and _installed(beside):
            beside = None
        _follow(root, path, top, beside, found)
    return found


def _follow(module: str, path: Path, top: str, beside: Path | None, found: dict[str, Path]) -> None:
    if found.get(module) == path:
        return
    found[module] = path
    for name in _needed(module, path):
        first = name.partition(".")[0]
        if first in (top, ENGINE) or first.startswith(f"{ENGINE}_"):
            at = _path(name)
        elif beside is not None:
            at = _within(beside, name.split("."))
        else:
            continue
        if at is not None:
            _follow(name, at, top, beside, found)


def _installed(folder: Path) -> bool:
    """Whether a folder holds packages of others."""
    import sysconfig  # reads a module that lists how Python was built; few processes ask

    places = (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    return any(folder.resolve().is_relative_to(Path(place).resolve()) for place in places)


@cache
def _needed(module: str, path: Path) -> tuple[str, ...]:
    """Modules that a file imports or names by a locator; those only its types need left out."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # told where it is imported
        return ()
    is_package = path.name == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    needed: dict[str, None] = {}
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            needed |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for alias in node.names:
                needed |= dict.fromkeys(_home(base, alias.name))
        elif isinstance(node, ast.Constant) and (named := _LOCATOR.fullmatch(str(node.value))):
            needed[named[1]] = None
    return tuple(needed)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but what ``if TYPE_CHECKING`` holds."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from _nodes(other)
            continue
        yield node
        yield from _nodes(node)


def _base(node: ast.ImportFrom, package: str) -> str:
    """The absolute name that ``from ... import`` starts from."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - (node.level - 1)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _home(base: str, name: str) -> Iterator[str]:
    """The modules that ``from base import name`` depends on."""
    path = _path(base)
    if _path(f"{base}.{name}") is not None:
        yield f"{base}.{name}"
    elif path is None or path.name != "__init__.py":
        yield base
    else:
        taken = _doorway(base, path).get(name)
        if taken is None:  # defined in the package itself, or everything is taken
            yield base
        else:
            yield from _home(*taken)


@cache
def _doorway(package: str, path: Path) -> dict[str, tuple[str, str]]:
    """Name -> (module, name there), for what a package's ``__init__`` takes from modules."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return {}
    return {
        alias.asname or alias.name: (_base(node, package), alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and _base(node, package) != package
        for alias in node.names
    }


@cache
def _path(module: str) -> Path | None:
    """The source file of a module; nothing is imported but what its top package's place tells."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first) if first else None
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        if (found := _within(Path(folder), rest)) is not None:
            return found
    return None


def _within(folder: Path, parts: list[str]) -> Path | None:
    """The file of a module below a folder."""
    at = folder.joinpath(*parts)
    return next(
        (p for p in (at.with_name(f"{at.name}.py"), at / "__init__.py") if p.is_file()), None
    )
