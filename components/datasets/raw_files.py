"""The files of a raw folder: the one list by which they are read, hashed and pinned."""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from components.contracts import RejectedFile
from components.display import printable_name
from components.errors import PedigreeError

SYSTEM_NAMES = frozenset(
    (
        # Windows, on disks and in its Explorer
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("$recycle.bin", "recycler", "system volume information", "found.000"),
        # macOS, in archives, on network disks, and for a folder's picture
        *("__macosx", "network trash folder", "temporary items", "icon\r"),
        # file systems and network disks (Synology, QNAP)
        *("lost+found", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
    )
)
"""Files and folders that a system puts beside people's own, in small letters; so are all that begin with a dot."""
SYSTEM_SUFFIX = re.compile(
    r"[:\uf03a](zone\.identifier|smartscreen|encryptable|com\.dropbox\.\w+|afp_\w+)(:\$data)?$"
    "|@syno(eastream|resource)$",
    re.IGNORECASE,
)
"""What NTFS keeps beside a file's content: on other file systems it is a file with this at the end of its name.

Windows Subsystem for Linux and Samba write the colon as U+F03A.
"""
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
"""Names of a split's folder, in small letters."""
COMPOSED = "COMPOSED.txt"
"""A file of this name says how the files were composed; they are called so wherever their results are shown."""
NESTED = ".dvc"
"""A folder of this name makes DVC take its parent for another project, of which it pins nothing."""
DEEPEST = 200
"""Most levels of folders: DVC recurses, and so do Python's functions, which may at most 1,000 times.

`shutil.copytree` makes two calls for each level, and prefect's own calls come on top.
"""
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")
"""The end of a file's path in a DVC cache, to which data sets are linked if `cache.type` is `symlink`."""


@dataclass(frozen=True)
class Files:
    """What a raw folder holds."""

    readable: frozenset[str]
    """Paths below the folder of all files that preparation may read: neither hidden nor a system's own."""
    rejected: tuple[RejectedFile, ...]
    """Links to nothing, and entries whose names cannot be written into a list, such as DVC's."""
    ignored: tuple[str, ...] = ()
    """Printable paths of hidden and system files and folders."""


def survey(folder: Path, cache: Callable[[], str] = str) -> Files:
    """List a raw folder without opening a file; a folder that does not exist has none.

    A link to a file of the same folder, or of its project's DVC cache, is a file. A hard link is one, too, wherever
    its other names are: nothing distinguishes it from a copy.

    Args:
        folder: The folder.
        cache: Returns the real path of that cache, or an empty string; called only for links to what may be in it.
            `dvc_data.survey` provides it.

    Raises:
        PedigreeError: the folder, or one inside it, is a link or another DVC project, of which DVC pins nothing;
            it holds a link to a file elsewhere, whose content would leave with the data, or a pipe, socket or
            device, which may never end; or it may not be read, or has over `DEEPEST` levels of folders.
    """
    for each in (folder, folder.parent):
        if each.is_symlink():
            raise PedigreeError(
                f"{each} is a symbolic link, which DVC does not follow: remove it, or mount the disk there"
            )
    readable: list[str] = []
    rejected: list[RejectedFile] = []
    links: list[str] = []
    foreign: list[str] = []
    ignored: set[str] = set()
    own = os.path.realpath(folder)
    for path, entry in _walk(folder) if folder.is_dir() else ():
        name, is_folder = path.as_posix(), _is_folder(entry)
        if is_folder and entry.is_symlink():
            links.append(name)
        elif is_folder and entry.name == NESTED:
            raise PedigreeError(
                f"{folder / path.parent} is a DVC project of its own, of which this one pins nothing: remove "
                f"{folder / path}"
            )
        elif what := _foreign(entry, own, cache):
            foreign.append(f"{printable_name(name)} ({what})")
        elif reason := _defect(name, entry):
            rejected.append(RejectedFile(file=printable_name(name), reason=reason))
        elif hidden := next((n for n, part in enumerate(path.parts, 1) if not shown(part)), 0):
            ignored.add(printable_name(PurePath(*path.parts[:hidden]).as_posix()))
        elif not is_folder:
            readable.append(name)
    if links:
        raise PedigreeError(
            f"{folder}: DVC does not follow links to folders: {listed(sorted(links))}: copy the folders into place"
        )
    if foreign:
        raise PedigreeError(
            f"{folder} may hold only its own files, not {listed(sorted(foreign))}: remove them, or copy the files "
            "into place"
        )
    return Files(frozenset(readable), tuple(sorted(rejected, key=lambda each: each.file)), tuple(sorted(ignored)))


def _walk(folder: Path) -> Iterator[tuple[PurePath, "os.DirEntry[str]"]]:
    """Yield each entry below a folder, with its path below it, in any order."""
    waiting = [PurePath()]
    while waiting:
        below = waiting.pop()
        if len(below.parts) > DEEPEST:
            raise PedigreeError(
                f"{folder} has over {DEEPEST} levels of folders, more than DVC can pin, in "
                f"{'/'.join(below.parts[:3])}: move the deepest up, or away"
            )
        try:
            opened = os.scandir(folder / below)
        except PermissionError:
            if all(map(shown, below.parts)):
                raise PedigreeError(
                    f"{folder / below} cannot be read: allow yourself to read it, or move it away"
                ) from None
            continue  # only root may open lost+found
        with opened as entries:
            for entry in entries:
                yield below / entry.name, entry
                if entry.is_dir(follow_symlinks=False) and entry.name != NESTED:
                    waiting.append(below / entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _foreign(entry: "os.DirEntry[str]", own: str, cache: Callable[[], str]) -> str:
    """Return what an entry is if it is no file or folder of `own`, a real path, or an empty string.

    Links to files of the cache count as such files, too.
    """
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
        return ""  # known without asking the disk
    try:
        kind = _KINDS.get(stat.S_IFMT(entry.stat().st_mode), "")
    except OSError:  # a link to nothing
        return ""
    target = os.path.realpath(entry.path)
    cached = _CACHED.search(target) and (folder := cache()) and target.startswith(f"{folder}{os.sep}")
    if entry.is_symlink() and not target.startswith(f"{own}{os.sep}") and not cached:
        return f"a link to {printable_name(target)}"
    return kind


def _defect(name: str, entry: "os.DirEntry[str]") -> str:
    """Return why an entry, by its name or path, cannot be pinned, or an empty string."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if ("\n" in name or "\r" in name) and shown(entry.name):  # macOS' "Icon\r" enters no list
        return "its name has a line break in it: rename it"
    try:
        if entry.is_symlink():
            entry.stat()
    except OSError:  # the target is missing, or is the link itself
        return "a link to nothing: remove it"
    return ""


def expect_target(file: Path) -> None:
    """Check that a file that decides the splits is not a link to nothing, which would count as no file.

    Raises:
        PedigreeError: it is.
    """
    if file.is_symlink() and not file.exists():
        raise PedigreeError(
            f"{file} is a link to nothing: bring back the file that it links to, or remove the link"
        )


def visible(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the names in a folder, and whether each is a folder, in any order.

    Left out are hidden and system files, and what `survey` rejects: it is not pinned, so no draw of a split may
    depend on it. A folder that does not exist has none.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if shown(entry.name) and not _defect(entry.name, entry):
                yield entry.name, _is_folder(entry)


def shown(name: str) -> bool:
    """Return whether a name is neither hidden nor that of a system's own file or folder."""
    return not (name.startswith(".") or name.lower() in SYSTEM_NAMES or SYSTEM_SUFFIX.search(name))


def about(folder: Path) -> list[str]:
    """Return the sorted names of files in a folder of samples that describe them, such as a licence."""
    return sorted(name for name, is_folder in visible(folder) if not is_folder and _ABOUT.match(name))


_ABOUT = re.compile("(readme|licen[cs]e|notice|copying|citation)", re.IGNORECASE)


def listed(names: Sequence[str]) -> str:
    """Return `a, b, c` with at most five names, and the number of further ones."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def split_of(name: str) -> str | None:
    """Return the split that a folder's name means in any case, or None."""
    return next((split for split, names in SPLITS.items() if name.casefold() in names), None)


def same(name: str) -> str:
    """Return a name in Unicode's form C, in which the spellings of é as one or as two characters are equal."""
    return unicodedata.normalize("NFC", name)


def by_name(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Map names in Unicode's form C, sorted, to the names of folders inside `folder`.

    Raises:
        PedigreeError: two folders have the same name in two spellings, or but for spaces at the ends.
    """
    found: dict[str, str] = {}
    alike: dict[str, str] = {}
    for name in sorted(names):
        if (other := alike.setdefault(same(name).strip(), name)) != name:
            raise PedigreeError(
                f"{folder}: the folders {other!a} and {name!a} have the same name but for its spelling in Unicode "
                "or spaces at its ends: put their files into one of them"
            )
        found[same(name)] = name
    return dict(sorted(found.items()))


def with_similar(names: Sequence[str], others: Iterable[str]) -> str:
    """Return `a, b, c` as `listed` does; names that hardly differ from one of `others` are quoted with it."""
    alike = {other.strip().casefold(): other for other in others}
    return listed(
        [
            f"'{name}' (there is '{alike[folded]}')" if (folded := name.strip().casefold()) in alike else name
            for name in names
        ]
    )


def composed(folder: Path, what: str) -> str:
    """Return "composed" and what the files are if `COMPOSED` is among them, or else an empty string."""
    return f"composed {what}" if (folder / COMPOSED).is_file() else ""
