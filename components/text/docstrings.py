"""Docstrings of installed packages: English prose that is there without a download."""

import ast
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

SHORTEST = 40
"""Minimum characters of a docstring."""
SKIPPED = frozenset({"tests", "testing", "distutils"})
"""Skipped folders; numpy.distutils only exists up to Python 3.11."""


def of_package(package: str) -> Iterator[str]:
    """Yield the docstrings of a package's public modules, in any order; they are read, and not imported.

    They depend only on the package's version, not on its location or on Python's version.
    """
    for file in _sources(package):
        yield from _docstrings(file)


def _sources(package: str) -> Iterator[Path]:
    """Yield a package's public source files, and those of numpy._core, whose functions numpy re-exports."""
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None, f"{package} has no files"
    root = Path(spec.origin).parent
    for file in root.rglob("*.py"):
        folders = set(file.relative_to(root).parts[:-1]) - {"_core"}
        if not folders & SKIPPED and not any(name.startswith("_") for name in folders):
            yield file


def _docstrings(file: Path) -> Iterator[str]:
    """Yield the docstrings of a source file without indentation; none if the file cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences
            tree = ast.parse(file.read_bytes(), feature_version=(3, 11))
    except (SyntaxError, ValueError):
        return
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            if len(text) >= SHORTEST and all(letter.isprintable() or letter == "\n" for letter in text):
                yield text


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and its statements; expressions, which are most of a tree, contain no docstrings."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _statements(child)
