"""Support for old versions: those from before a parameter was added, or before params.yaml had `models:`.

The lineage of the latter names neither a model nor a data set, `data.pinned` is the hash of all of data/ with one
folder per task, and their parameters have old keys.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from components.params import Values, flat
from components.trust.lineage import Lineage


def is_old(lineage: Lineage) -> bool:
    """Return whether a version was registered before params.yaml had `models:`."""
    return not lineage.model


_NAMES = {"vision": "image_classification", "language": "language_model", "speech": "spoken_words"}
"""Present names of tasks by their old names, which were also the names of the models."""


def task(lineage: Lineage) -> str:
    """Return the name of a version's task as it is now."""
    return _NAMES.get(lineage.task, lineage.task)


def section(lineage: Lineage) -> str:
    """Return the name of a version's section of params.yaml, which is also an argument of its stages."""
    return lineage.model or lineage.task


def data_folder(lineage: Lineage) -> str:
    """Return the folder of data/ that a version's stages read."""
    return lineage.data.name or lineage.task


def below(lineage: Lineage) -> str:
    """Return the subfolder of the pinned data that is the version's data set; empty if all of it is."""
    return "" if lineage.data.name else lineage.task


ADDED: Mapping[tuple[str, ...], Any] = {
    ("prepare", "test_share"): 0.2,  # versions without it had a test split of their own
    ("prepare", "resplit"): 0,
    ("register", "gate", "pinned"): False,
}
"""Parameters that were added since, with the values that train as before."""


NETWORKS = {8: "whitened", 18: "resnet18", 34: "resnet34"}
"""What `train.model.network` is now, by what `train.model.depth` was."""


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a version's parameters with those that the present code has more, under their present names."""
    added: dict[str, Any] = {}
    for path, value in ADDED.items():
        section = added
        for key in path[:-1]:
            section = section.setdefault(key, {})
        section[path[-1]] = value
    tree = deepcopy(Values(dict(values), {}).over(Values(added, {})).tree)
    network = tree.get("train", {}).get("model", {})
    if "depth" in network:
        network["network"] = NETWORKS[network.pop("depth")]
    return tree


def params_file(lineage: Lineage, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of the params.yaml from which a version's own code trains it again.

    Args:
        lineage: The version's lineage.
        values: Its parameters, with copies in place of the files that they named.
    """
    if is_old(lineage):
        return {"tasks": {lineage.task: values}}
    return {"models": {lineage.model: {"task": lineage.task, "data": lineage.data.name, **values}}}


def link_checkpoint(lineage: Lineage, root: Path, workspace: Path) -> None:
    """Link the checkpoint that an old version names by a path relative to `root` into `workspace`."""
    named = flat(lineage.params).get("train.model.checkpoint")
    if is_old(lineage) and named and not Path(named).is_absolute():
        (workspace / named).parent.mkdir(parents=True, exist_ok=True)
        (workspace / named).symlink_to(root / named)
