"""Text to begin with: the docstrings of packages that are here anyway, and WikiText-2 from the net."""

import ast
import hashlib
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import accumulate, takewhile
from pathlib import Path
from urllib.parse import urlsplit

from components.errors import PedigreeError

SHORTEST, MOST_BYTES = 40, 3_000_000
"""Characters that a docstring must have, and bytes of all that are taken."""
LINE, KNOWN = 30, 0.25
"""Characters from which a line is telling, and the share of such lines that a docstring may repeat."""
SKIPPED = frozenset({"tests", "testing", "distutils"})
"""Folders; numpy has its distutils up to Python 3.11 only."""

URL = "https://wikitext.smerity.com/wikitext-2-v1.zip"
MD5 = "542ccefacc6c27f945fb54453812b3cd"
LARGEST = 100_000_000
"""Bytes of a part of WikiText-2, of which train, the largest, has 11 million."""


def docstrings(folder: Path) -> None:
    """Write folder/docstrings.txt: 3 MB of English prose out of the installed torch and numpy (both BSD-3-Clause).

    It depends on the versions of the two alone, not on where they are or on Python's version; the packages are
    read, not imported. The order is that of the docstrings' hashes, so that any part is a fair sample, and a
    docstring of which over a quarter of the longer lines stood in earlier ones is left out: a network tested on
    the end has not learnt it by heart. Shorter repetitions stay, about one such line in twenty-five.
    """
    found = {text for package in ("numpy", "torch") for file in _sources(package) for text in _docstrings(file)}
    ordered = sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())
    texts = [f"{text}\n" for text in _novel(ordered)]
    sizes = accumulate(len(text.encode()) + 1 for text in texts)
    count = len(list(takewhile(lambda size: size <= MOST_BYTES, sizes)))
    (folder / "docstrings.txt").write_text("\n".join(texts[:count]), encoding="utf-8", newline="\n")


def _sources(package: str) -> Iterator[Path]:
    """Yield a package's public source files, and those of numpy's _core, whose functions numpy shows as its own."""
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None, f"{package} has no files"
    root = Path(spec.origin).parent
    for file in root.rglob("*.py"):
        folders = set(file.relative_to(root).parts[:-1]) - {"_core"}
        if not folders & SKIPPED and not any(name.startswith("_") for name in folders):
            yield file


def _docstrings(file: Path) -> Iterator[str]:
    """Yield the docstrings of a source file, without the indentation; of one that cannot be read, none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes
            tree = ast.parse(file.read_bytes(), feature_version=(3, 11))
    except (SyntaxError, ValueError):
        return
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            if len(text) >= SHORTEST and all(letter.isprintable() or letter == "\n" for letter in text):
                yield text


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and the statements in it: expressions hold no docstrings, and are most of a tree."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _statements(child)


def _novel(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts of which enough is new: no more than `KNOWN` of their longer lines stood in earlier ones."""
    seen: set[str] = set()
    for text in texts:
        lines = [line for line in map(str.strip, text.split("\n")) if len(line) >= LINE]
        if sum(line in seen for line in lines) <= KNOWN * len(lines):
            yield text
        seen.update(lines)


def wikitext2(folder: Path, cache: Path) -> None:
    """Write WikiText-2 as folder/{train,valid,test}.txt, a paragraph a line: 2,088,628, 217,646 and 245,569 words.

    The archive is fetched into `cache` unless it is there already. Source: Merity et al. 2016, arXiv:1609.07843;
    licence CC BY-SA.

    Raises:
        PedigreeError: the archive cannot be fetched, or is not the one that was published.
    """
    from torchvision.datasets.utils import download_url  # type: ignore[import-untyped]

    archive, host = cache / Path(URL).name, urlsplit(URL).netloc
    try:
        download_url(URL, cache, archive.name, MD5)
    except OSError as error:  # URLError is one
        reason = getattr(error, "reason", error)
        raise PedigreeError(
            f"WikiText-2 could not be fetched from {host} ({reason}): try again, or put the file "
            f"with md5 {MD5} at {archive}"
        ) from error
    except RuntimeError as error:
        raise PedigreeError(
            f"{archive}, as {host} sent it, is not what was published (md5 {MD5}): "
            "remove it and try again, or put the right file there"
        ) from error
    convert_wikitext2(archive, folder)


def convert_wikitext2(archive: Path, folder: Path) -> None:
    """Write the three parts of an archive in the format of wikitext-2-v1.zip, byte for byte.

    Raises:
        PedigreeError: it is damaged, lacks a part, or has one of more than 100 MB.
    """
    try:
        with zipfile.ZipFile(archive) as parts:
            for split in ("train", "valid", "test"):
                _extract(archive, parts, f"wikitext-2/wiki.{split}.tokens", folder / f"{split}.txt")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PedigreeError(f"{archive} cannot be unpacked ({error}): remove it and get it again") from error


def _extract(archive: Path, parts: zipfile.ZipFile, name: str, target: Path) -> None:
    """Write one member, of which zipfile never reads more than the size that is declared."""
    if name not in parts.NameToInfo:
        raise PedigreeError(f"{archive} has no {name}: it is not WikiText-2, so get another")
    if parts.getinfo(name).file_size > LARGEST:
        raise PedigreeError(
            f"{archive}: {name} has more than {LARGEST:,} bytes: it is not WikiText-2, so get another"
        )
    with parts.open(name) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
