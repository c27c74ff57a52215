"""Initial weights: named tensors from a file, read without running code in it, and loaded into a network."""

import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.errors import PedigreeError

log = logging.getLogger("pedigree.train")

MODEL_WEIGHTS = "weights.safetensors"
"""The weights file in the folder of a trained model."""


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, a PyTorch state dict, or a trained model's folder.

    Raises:
        PedigreeError: the file is missing or damaged, or contains anything but named tensors.
    """
    file = path / MODEL_WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise PedigreeError(
            f"{file} is not a file: name a file of weights, or a registered version, in train.init.from"
        )
    try:
        content = _content(file)
    except pickle.UnpicklingError:
        raise PedigreeError(
            f"{file} holds more than tensors and is not loaded because it could run code: "
            "save the weights alone, with torch.save(model.state_dict(), file)"
        ) from None
    except PermissionError:
        raise
    except Exception as error:  # damaged files cause all kinds of exceptions
        raise PedigreeError(f"{file} cannot be read and seems damaged: get another copy") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise PedigreeError(f"{file} contains a {kind} instead of named tensors: save a state_dict")
    others = [str(k) for k, value in content.items() if not (isinstance(k, str) and isinstance(value, Tensor))]
    if others:
        raise PedigreeError(f"{file} holds more than tensors, {', '.join(others[:3])}: save the state_dict alone")
    return content


def _content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    # Files from before torch 1.6 are not zip archives, and only archives can be memory-mapped.
    return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))


def start_from(model: nn.Module, path: Path) -> set[str]:
    """Load the tensors of `path` whose names and shapes match the network's; all others keep their values.

    Returns:
        The names of the parameters that were loaded.

    Raises:
        PedigreeError: the weights cannot be read, or none of them matches.
    """
    return start_with(model, read(path), path)


def start_with(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> set[str]:
    """Load tensors that were read from `path`, as `start_from` does."""
    own = model.state_dict()
    matching = {name: each for name, each in tensors.items() if name in own and own[name].shape == each.shape}
    loaded = parameters_among(model, matching)
    if not loaded:  # matching buffers, such as statistics of the data, are not enough
        raise PedigreeError(
            f"{path} has no weights that match this network by name and shape ({_first(tensors)} in the file, "
            f"{_first(own)} in the network): name weights of the same architecture, or set train.init.from to "
            "random"
        )
    model.load_state_dict(matching, strict=False)
    report(model, matching, path)
    return loaded


def report(model: nn.Module, loaded: Mapping[str, object], path: Path) -> None:
    """Log how many of a network's tensors come from the file at `path`, and which parameters are new."""
    own, new = model.state_dict(), [name for name, _ in model.named_parameters() if name not in loaded]
    log.info(
        "started from %d of %d tensors of %s%s",
        sum(name in loaded for name in own),
        len(own),
        path.name,
        f"; new: {', '.join(new[:5])}{' …' if len(new) > 5 else ''}" if new else "",
    )


def _first(tensors: Mapping[str, Tensor]) -> str:
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:3]]
    return f"{', '.join(shown) or 'nothing'}{', …' if len(tensors) > 3 else ''}"


def parameters_among(model: nn.Module, tensors: Mapping[str, object]) -> set[str]:
    """Return which of the names are parameters of the model, not buffers; shared ones by their first name.

    Files contain shared parameters once, under any of their names.
    """
    named = model.named_parameters(remove_duplicate=False)
    loaded = {id(parameter) for name, parameter in named if name in tensors}
    return {name for name, parameter in model.named_parameters() if id(parameter) in loaded}
