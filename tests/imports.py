"""Which module of edgekit imports which: read from the source, without running it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """`importer` imports `imported` (both module names); `late` inside a function."""

    importer: str
    imported: str
    late: bool


def modules(root: Path) -> dict[str, Path]:
    """Module name -> file of every module of the package folder `root`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(root: Path) -> list[Import]:
    """Every import, those for type checkers left out."""
    known = modules(root)
    found: list[Import] = []

    def visit(node: ast.AST, name: str, package: str, late: bool) -> None:
        if _for_types_only(node):
            return
        if isinstance(node, ast.Import):
            found.extend(Import(name, a.name, late) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")
                base = ".".join([*up[: len(up) - node.level + 1], *([base] if base else [])])
            for a in node.names:
                full = f"{base}.{a.name}"
                found.append(Import(name, full if full in known else base, late))
        inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, name, package, inside)

    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        visit(ast.parse(path.read_text(encoding="utf-8")), name, package, False)
    return found
