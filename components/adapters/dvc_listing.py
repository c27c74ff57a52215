"""Reads the listing of a data set's version, a `.dir` object in DVC's cache or a remote, without trusting it.

DVC creates a file wherever a listing says, even outside the project, so each is read here before DVC uses it.
"""

import json
import re
from typing import Any

from components.datasets.raw_files import DEEPEST
from components.display import brief
from components.errors import DamagedError, PedigreeError

MD5 = re.compile(r"[0-9a-f]{32}")
LARGEST = 2**28
"""Maximum bytes of a listing, enough for two million files; larger ones would fill the memory."""
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Maximum bytes of a name and of a path on Linux (limits.h)."""
OUTSIDE = frozenset(("", ".", ".."))
"""Parts of an absolute path, or of one that may leave its folder."""
RESERVED = frozenset((".dvc", ".git", "git~1"))
"""Names of folders, in small letters, in which a listing could plant settings that git or DVC then executes.

File systems that ignore case take them in any, and NTFS the third for the second (git, `core.protectNTFS`).
"""


def read(store: Any, md5: str) -> dict[tuple[str, ...], str]:
    """Return the files of a version: the parts of their paths, with the MD5 of each.

    Whether the listing itself has the hash `md5` is not checked.

    Args:
        store: DVC's object database of the cache or of a remote.
        md5: The hash of the version, with the suffix `.dir`.

    Raises:
        FileNotFoundError: the store does not have the listing.
        DamagedError: it is not a listing.
        PedigreeError: it is too large, or names a file that no folder can hold.
    """
    with store.fs.open(path_in(store, md5), "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise PedigreeError(f"the listing of data {md5} has over {LARGEST:,} bytes: do not use it")
    try:
        entries = [(entry["relpath"], entry["md5"]) for entry in json.loads(content)]
        damaged = not all(isinstance(path, str) and MD5.fullmatch(oid) for path, oid in entries)
    except (ValueError, KeyError, TypeError, RecursionError):
        damaged = True
    if damaged:
        raise DamagedError(f"the listing of data {md5} is damaged: copy it from another cache, or push it again")
    files: dict[tuple[str, ...], str] = {}
    for path, oid in entries:
        parts = tuple(path.split("/"))
        if reason := "occurs twice" if parts in files else problem(path):
            raise PedigreeError(f"the listing of data {md5} names {brief(path)}, which {reason}: do not use it")
        files[parts] = oid
    for parts in files:
        if any(parts[:length] in files for length in range(1, len(parts))):
            path = brief("/".join(parts))
            raise PedigreeError(f"the listing of data {md5} names {path}, which is below a file: do not use it")
    return files


def path_in(store: Any, md5: str) -> str:
    """Return the path of a listing in a store; raises a DamagedError if `md5` is not the hash of one."""
    if not MD5.fullmatch(md5.removesuffix(".dir")):
        raise DamagedError(f"{brief(md5)} is not the hash of a data set: restore it from git")
    return str(store.oid_to_path(md5))


def problem(path: str) -> str:
    """Return why DVC cannot have pinned a file at a path below a data set, or an empty string."""
    parts = path.split("/")
    if OUTSIDE.intersection(parts):
        return "is outside its folder"
    if len(parts) > DEEPEST + 1:
        return f"is over {DEEPEST} levels of folders deep"
    if any(part.casefold() in RESERVED for part in parts):
        return "is in a folder of git or DVC"
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "is not a file name"
    if "\0" in path or max(sizes) > LONGEST_NAME or sum(sizes) + len(sizes) > LONGEST_PATH:
        return "is not a file name"
    return ""
