"""The weights of a BERT in a folder of Hugging Face: config.json, model.safetensors, and a tokenizer."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from components import weights
from components.errors import PedigreeError
from components.text import tokens, wordpiece
from components.text.networks.bert import EPSILON, KINDS, Bert
from components.text.params import BertParams

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SIZE = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "positions": "max_position_embeddings",
}
"""Our names of a network's sizes, and those in config.json."""
FIXED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": EPSILON,
    "type_vocab_size": KINDS,
}
"""What config.json may not have otherwise; each may be missing."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Files of weights that could run code, as torch.save writes them."""
_LAYER = {
    "attention": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "norm": "output.LayerNorm",
}
_EMBEDDED = {
    "tokens.weight": "embeddings.word_embeddings.weight",
    "positions.weight": "embeddings.position_embeddings.weight",
    "kinds.weight": "embeddings.token_type_embeddings.weight",
    "norm.weight": "embeddings.LayerNorm.weight",
    "norm.bias": "embeddings.LayerNorm.bias",
}
"""Our names of parts, and theirs."""


def is_folder(path: Path) -> bool:
    """Return whether a path that train.init.from names is such a folder, and none of a model of this project."""
    return path.is_dir() and not (path / weights.MODEL_WEIGHTS).exists()


def start(model: nn.Module, size: BertParams, tokenizer: str, path: Path) -> set[str]:
    """Load initial weights: a BERT's folder into the network's `encoder`, or others by name and shape.

    Args:
        model: The network.
        size: Of its encoder.
        tokenizer: The prepared one, as text.
        path: A BERT's folder, or a file of weights.

    Returns:
        The names of the parameters that were loaded.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    encoder = model.encoder
    if not is_folder(path):
        return weights.start_from(model, path)
    if not isinstance(encoder, Bert):
        raise PedigreeError(f"{path} is a BERT's folder: set train.model.network to bert, or name other weights")
    names = {f"encoder.{name}": None for name in load(encoder, size, tokens.load(tokenizer), path)}
    weights.report(model, names, path)
    return weights.parameters_among(model, names)


def load(network: Bert, size: BertParams, tokenizer: Tokenizer, folder: Path) -> set[str]:
    """Load a folder's weights into an encoder, all of whose weights they replace; return their names.

    Args:
        network: The encoder.
        size: Its size.
        tokenizer: The tokenizer of the prepared data.
        folder: The folder.

    Raises:
        PedigreeError: a file is missing or damaged, could run code, is of another kind of network or of another
            size, or the tokenizer is another one.
    """
    _check_config(folder, size)
    _check_vocabulary(folder, tokenizer)
    found = renamed(_read(folder), size.layers)
    own = network.state_dict()
    if lacking := [name for name in own if name not in found]:
        theirs = lacking[0]
        raise PedigreeError(
            f"{folder / WEIGHTS} lacks {len(lacking)} of the {len(own)} tensors of a BERT, such as {theirs!r}: "
            "name the folder of a BERT with all its weights"
        )
    found["tokens.weight"] = found["tokens.weight"][: len(own["tokens.weight"])]  # there may be spare ones
    for name, tensor in own.items():
        if found[name].shape != tensor.shape:
            raise PedigreeError(
                f"{folder / WEIGHTS} does not fit its {CONFIG}: {name} is {tuple(found[name].shape)} instead of "
                f"{tuple(tensor.shape)}: get both from one source"
            )
    network.load_state_dict({name: found[name] for name in own})
    return set(own)


def config_of(folder: Path) -> dict[str, Any]:
    """Return the content of config.json.

    Raises:
        PedigreeError: it is missing, is not JSON, or is of another kind of network.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise PedigreeError(
            f"{folder} has no file {CONFIG}: name the folder of a BERT, with {CONFIG}, {WEIGHTS}, and "
            f"{wordpiece.JSON} or {wordpiece.VOCABULARY}"
        ) from None
    except (ValueError, RecursionError):
        raise PedigreeError(f"{file} is not JSON: get another copy") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "bert":
        raise PedigreeError(f"{file} is of a network of the type {kind!r}, not 'bert': name the folder of a BERT")
    return dict(config)


def _check_config(folder: Path, size: BertParams) -> None:
    config = config_of(folder)
    for name, wanted in FIXED.items():
        if config.get(name, wanted) != wanted:
            raise PedigreeError(
                f"{folder / CONFIG}: {name} is {config[name]!r}, and only {wanted!r} is read: name another BERT"
            )
    own = size.model_dump()
    different = [ours for ours, theirs in SIZE.items() if config.get(theirs) != own[ours]]
    if different:
        remedy = ", ".join(f"{ours}: {config.get(theirs)}" for ours, theirs in SIZE.items())
        what = ", ".join(f"{SIZE[name]} {config.get(SIZE[name])} instead of {own[name]}" for name in different)
        raise PedigreeError(
            f"{folder / CONFIG} is of another size than the network ({what}): set train.model.bert to {{{remedy}}}"
        )


def _check_vocabulary(folder: Path, tokenizer: Tokenizer) -> None:
    file = wordpiece.of_folder(folder)
    if wordpiece.load(file).get_vocab() != tokenizer.get_vocab():
        raise PedigreeError(
            f"{file} has other tokens than those that the data were prepared with: set prepare.tokenizer to "
            f"wordpiece from {file}, and run prepare again"
        )


def _read(folder: Path) -> dict[str, Tensor]:
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
        if pickled:
            raise PedigreeError(
                f"{folder} has its weights in {pickled[0]}, which could run code when it is loaded: get "
                f"{WEIGHTS} from the same source, or convert it with safetensors.torch.save_file"
            )
        raise PedigreeError(f"{folder} has no {WEIGHTS}: get it from the source of its {CONFIG}")
    return weights.read(folder / WEIGHTS)


def renamed(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return a BERT's tensors under the names of `Bert`, in fp32; what it has no part for is left out.

    A network with a head has its encoder below `bert.`, and old files call the weights of layer norms gamma and
    beta, as transformers still reads them.
    """
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        current = re.sub(r"LayerNorm\.(gamma|beta)$", _norm, name.removeprefix("bert."))
        theirs[current] = tensor.float()
    found = {ours: theirs[name] for ours, name in _EMBEDDED.items() if name in theirs}
    for index in range(layers):
        for kind in ("weight", "bias"):
            for ours, name in _LAYER.items():
                if (full := f"encoder.layer.{index}.{name}.{kind}") in theirs:
                    found[f"layers.{index}.{ours}.{kind}"] = theirs[full]
            parts = [f"encoder.layer.{index}.attention.self.{part}.{kind}" for part in ("query", "key", "value")]
            if all(part in theirs for part in parts):
                found[f"layers.{index}.projected.{kind}"] = torch.cat([theirs[part] for part in parts])
    return found


def _norm(match: re.Match[str]) -> str:
    return f"LayerNorm.{'weight' if match[1] == 'gamma' else 'bias'}"
