"""The raw folder of images with a class for each pixel: which images, with which masks, in which splits.

No image or mask is opened here. Five layouts are known, by the names of folders and files:

- `folders`: a mask for each image, with the same name but for its suffix, in folders beside each other:
  `{train,val,test}/{images,masks}/`, `{images,masks}/{train,val,test}/`, `{train,trainannot,val,valannot,…}/`
  (SegNet's CamVid), or `images/` and `masks/`, with lists `{train,val,test}.txt` or without splits.
- `instances`: a mask for each object, in a folder for each image: `<name>/{images,masks}/`, or
  `images/<name>.png` and `masks/<name>/`.
- `voc`: Pascal VOC's `JPEGImages/`, `SegmentationClass/` and `ImageSets/Segmentation/{train,val,test}.txt`.
- `cityscapes`: `leftImg8bit/{train,val,test}/<city>/<name>_leftImg8bit.png` and
  `gtFine/{train,val,test}/<city>/<name>_gtFine_labelIds.png`.
- `coco`: COCO's JSON files, with polygons or run lengths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from re import compile as pattern
from typing import Literal

from components.datasets.raw_files import COMPOSED, about, listed, split_of
from components.errors import PedigreeError
from components.images import drawn_splits
from components.images.annotations.files import Files, below
from components.images.masks import coco_regions
from components.images.masks.regions import Region
from components.params import FilesPrepareParams

Format = Literal["folders", "instances", "voc", "cityscapes", "coco"]

IMAGES = frozenset({"images", "image", "imgs", "img", "leftimg8bit"})
MASKS = frozenset({"masks", "mask", "labels", "label", "annotations", "annots", "annot", "gt", "gtfine"})
"""Names of folders in small letters."""
_SPLIT_OF_MASKS = pattern(r"(?P<split>[a-z]+?)[_-]?(annot|annotations|masks?|labels?)")
"""The name of a folder of masks beside the folder of a split's images, such as trainannot."""
VOC_IMAGES, VOC_MASKS, VOC_LISTS = "JPEGImages", "SegmentationClass", "Segmentation"
CITY_IMAGE, CITY_MASK, CITY_ANNOTATION = "_leftImg8bit", "_gtFine_labelIds", "_gtFine_"
"""What the names of Cityscapes' images and masks end with, and what those of all its annotations have."""
_LAYOUTS = (
    "put images into train/images/ and a mask of the same name for each into train/masks/, likewise val and test, "
    "or use another layout of docs/tasks/segmentation.md"
)


@dataclass(frozen=True)
class Annotated:
    """An image and where the classes of its pixels are."""

    image: str
    """Path below the raw folder."""
    masks: tuple[str, ...] = ()
    """Paths of its mask, or of the masks of its instances."""
    instances: bool = False
    """Whether each mask is that of one object."""
    regions: tuple[Region, ...] = ()
    """In the layout `coco`, its annotations; none for an image without objects."""
    size: tuple[int, int] | None = None
    """Width and height that the annotation gives, if it does."""


@dataclass(frozen=True)
class Survey:
    """The images of each split; no image has been opened."""

    layout: Format
    splits: Mapping[str, Sequence[Annotated]]
    """Sorted by the path of the image."""
    strays: Mapping[str, str]
    """Files that are used for nothing, by path, and why."""
    classes: Sequence[str] = ()
    """In the layout `coco`, the names of the classes by index, the background first."""
    ignored: Sequence[str] = ()
    """Files of other layouts."""
    cases: Mapping[str, int] = field(default_factory=dict)
    """How often what was found that a format is known for, by description."""
    drawn: str = ""
    """What was drawn for testing; empty if the data set has a test split."""
    group: str = ""
    """Pattern that finds the group in a file's name; empty unless test was drawn by groups."""
    note: str = ""
    """What to say of the draw beside all results; may be empty."""

    @property
    def total(self) -> int:
        """Number of images and strays."""
        return sum(map(len, self.splits.values())) + len(self.strays)


def survey(raw: Path, options: FilesPrepareParams, layout: Format | Literal["auto"]) -> Survey:
    """Survey the raw folder, and draw the splits that it does not have (`drawn_splits.divide`).

    Raises:
        PedigreeError: there are no masks, the layout is two at once, or there are too few images.
    """
    listed_files = below(raw)
    files = listed_files.paths
    chosen = _layout(raw, listed_files) if layout == "auto" else layout
    if chosen == "coco":
        read = coco_regions.read(listed_files)
        samples = {
            split: [Annotated(each.file, regions=tuple(each.objects), size=each.size) for each in images]
            for split, images in read.splits.items()
        }
        found = Survey(chosen, samples, read.rejected, read.classes, cases=read.cases)
    elif chosen == "voc":
        found = _voc(raw, files)
    else:
        found = _cityscapes(raw, files) if chosen == "cityscapes" else _pairs(raw, files, chosen)
    names = {split: [each.image for each in images] for split, images in found.splits.items()}
    if not any(names.values()):
        detected = "" if layout == "auto" else "set prepare.format to auto, which detects the layout, or "
        raise PedigreeError(f"{raw}: there is no image with a mask in the layout {chosen}: {detected}{_LAYOUTS}")
    divided = drawn_splits.divide(raw, names, options)
    by_name = {each.image: each for images in found.splits.values() for each in images}
    splits = {split: [by_name[name] for name in files] for split, files in divided.files.items()}
    return replace(found, splits=splits, drawn=divided.drawn, group=divided.group, note=divided.note)


def _layout(raw: Path, files: Files) -> Format:
    """Return the layout of the files.

    Raises:
        PedigreeError: there is none, or there are two.
    """
    found: dict[Format, str] = {}
    if voc := [file for file in files.images if PurePosixPath(file).parent.name == VOC_MASKS]:
        found["voc"] = voc[0]
    if documents := coco_regions.files_of(files):
        found["coco"] = documents[0]
    places = _places(files.images)
    if city := [file for file in files.images if PurePosixPath(file).stem.endswith(CITY_MASK)]:
        found["cityscapes"] = city[0]
    elif masks := [file for file, place in places.items() if place.kind == "mask"]:
        found["instances" if _has_instances(places) else "folders"] = masks[0]
    if len(found) > 1:
        both = " and ".join(f"{name} ({file})" for name, file in found.items())
        raise PedigreeError(f"{raw} has masks in two layouts, {both}: name the one to read in prepare.format")
    if not found:
        raise PedigreeError(f"{raw}: there are no masks: {_LAYOUTS}")
    return next(iter(found))


@dataclass(frozen=True)
class _Place:
    """What the folders of a file's path say of it."""

    split: str
    """Empty if they name none."""
    kind: Literal["image", "mask", ""]
    rest: str
    """The other folders, joined by slashes."""
    stem: str


def _places(files: Sequence[str]) -> dict[str, _Place]:
    folders = {part for file in files for part in PurePosixPath(file).parent.parts}
    beside = frozenset(split for name in folders if (split := _split_of_masks(name)))
    return {file: _place(PurePosixPath(file), beside) for file in files}


def _place(path: PurePosixPath, beside: frozenset[str]) -> _Place:
    """Return the place of a file; `beside` has the splits whose masks are in a folder beside their images."""
    split, rest = "", []
    kind: Literal["image", "mask", ""] = ""
    for name in path.parent.parts:
        folded = name.casefold()
        if not kind and folded in IMAGES | MASKS:
            kind = "image" if folded in IMAGES else "mask"
        elif not split and (found := split_of(name)):
            split = found
        elif not split and not kind and (found := _split_of_masks(name)):
            split, kind = found, "mask"
        else:
            rest.append(name)
    if split in beside and not kind:
        kind = "image"
    return _Place(split, kind, "/".join(rest), path.stem)


def _split_of_masks(name: str) -> str | None:
    match = _SPLIT_OF_MASKS.fullmatch(name.casefold())
    return split_of(match["split"]) if match else None


def _has_instances(places: Mapping[str, _Place]) -> bool:
    """Return whether a folder holds the masks of one image's instances, none of which has the name of an image."""
    images = [each for each in places.values() if each.kind == "image"]
    masks = [each for each in places.values() if each.kind == "mask"]
    names = {_key(each, "folders") for each in images}
    folders = {_key(each, "instances") for each in images}
    return not any(_key(each, "folders") in names for each in masks) and any(
        _key(each, "instances") in folders for each in masks
    )


def _key(place: _Place, layout: Format) -> tuple[str, ...]:
    """Return what an image and its masks have in common."""
    if layout in ("folders", "cityscapes"):
        return place.split, place.rest, place.stem.removesuffix(CITY_IMAGE).removesuffix(CITY_MASK)
    return place.split, place.rest or (place.stem if place.kind == "image" else "")


def _pairs(raw: Path, files: Sequence[str], layout: Format) -> Survey:
    """Pair images with their masks by the folders they are in, and unless these are of instances by their stems."""
    places = _places(files)
    images, masks = _by_key(places, "image", layout), _by_key(places, "mask", layout)
    other = {*about(raw), *_lists(places).values(), COMPOSED}
    ignored = [file for file, place in places.items() if not place.kind and file.endswith(".json")]
    strays = {
        file: "in no folder of images or masks"
        for file, place in places.items()
        if not place.kind and file not in other and not file.endswith(".json")
    }
    found: dict[str, list[Annotated]] = {}
    for key, (image, *more) in images.items():
        strays |= dict.fromkeys(more, f"another image of the name of {image}: rename one, and its mask")
        own = masks.get(key, [])
        if len(own) == 1 or (own and layout == "instances"):
            found.setdefault(key[0], []).append(Annotated(image, tuple(own), layout == "instances"))
        else:
            several = f"an image with several masks of its name, {listed(own)}: remove all but one"
            strays[image] = several if own else "an image without a mask"
    for key, without in masks.items():
        if key not in images:
            strays |= dict.fromkeys(without, "a mask without an image")
    if set(found) == {""} and (lists := _lists(places)):
        found, left = _by_lists(raw, lists, found[""])
        strays |= {each.image: "in none of the lists" for each in left}
    return Survey(layout, _without_split(found), strays, ignored=ignored)


def _by_key(places: Mapping[str, _Place], kind: str, layout: Format) -> dict[tuple[str, ...], list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for file, place in places.items():
        if place.kind == kind:
            found.setdefault(_key(place, layout), []).append(file)
    return found


def _without_split(found: Mapping[str, Sequence[Annotated]]) -> dict[str, Sequence[Annotated]]:
    """Return splits in which the images of no split are of train."""
    splits = {split: list(images) for split, images in found.items() if split}
    if "" in found:
        splits["train"] = [*splits.get("train", ()), *found[""]]
    return {split: sorted(images, key=lambda each: each.image) for split, images in splits.items()}


def _lists(places: Mapping[str, _Place]) -> dict[str, str]:
    """Return the list of each split: train.txt and the like in the raw folder itself."""
    return {
        split: file
        for file in places
        if "/" not in file and file.endswith(".txt") and (split := split_of(file[:-4]))
    }


def _cityscapes(raw: Path, files: Sequence[str]) -> Survey:
    """Pair Cityscapes' images and masks; its further files of annotations hold the same in other forms."""
    others = {
        file for file in files if CITY_ANNOTATION in (name := PurePosixPath(file).stem) and CITY_MASK not in name
    }
    found = _pairs(raw, [file for file in files if file not in others], "cityscapes")
    return replace(found, cases={"annotations besides labelIds, passed over": len(others)} if others else {})


def _voc(raw: Path, files: Sequence[str]) -> Survey:
    """Pair VOC's images and masks by their stems; images without a mask are not annotated, and passed over."""
    images, masks, lists = {}, {}, {}
    for file in files:
        path = PurePosixPath(file)
        root = path.parent.parent.as_posix()
        if path.parent.name == VOC_IMAGES:
            images[root, path.stem] = file
        elif path.parent.name == VOC_MASKS:
            masks[root, path.stem] = file
        elif path.parent.name == VOC_LISTS and path.suffix == ".txt" and (split := split_of(path.stem)):
            lists[split] = file
    strays = {masks[key]: "a mask without an image" for key in masks if key not in images}
    found = [Annotated(image, (masks[key],)) for key, image in images.items() if key in masks]
    cases = {"images without a mask, passed over": len(images) - len(found)}
    splits, left = _by_lists(raw, lists, found) if lists else ({"train": found}, [])
    if lists:
        cases["images with a mask in no list, passed over"] = len(left)
    return Survey(
        "voc", _without_split(splits), strays, cases={name: count for name, count in cases.items() if count}
    )


def _by_lists(
    raw: Path, lists: Mapping[str, str], images: Sequence[Annotated]
) -> tuple[dict[str, list[Annotated]], list[Annotated]]:
    """Divide images by the lists of splits, each of which has a line for each image; return also what is in none.

    A line begins with the image's name or path, with or without its suffix.

    Raises:
        PedigreeError: a line names no annotated image, or one that is listed for another split.
    """
    by_stem = {PurePosixPath(each.image).stem: each for each in images}
    split_by_stem: dict[str, str] = {}
    for split, file in sorted(lists.items()):
        text = (raw / file).read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            names = (line.strip(), line.split()[0])
            stems = [stem for name in names for stem in (PurePosixPath(name).name, PurePosixPath(name).stem)]
            stem = next((stem for stem in stems if stem in by_stem), None)
            if stem is None:
                raise PedigreeError(
                    f"{raw / file}:{number}: there is no image {stems[0]} with a mask: remove the line"
                )
            if (other := split_by_stem.setdefault(stem, split)) != split:
                raise PedigreeError(
                    f"{raw / file}:{number}: {stem} is listed for {other}, too: remove one of the lines"
                )
    splits: dict[str, list[Annotated]] = {}
    for stem, split in split_by_stem.items():
        splits.setdefault(split, []).append(by_stem[stem])
    return splits, [each for stem, each in by_stem.items() if stem not in split_by_stem]
