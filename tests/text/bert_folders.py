"""Small BERTs with random weights, in folders as Hugging Face lays them out."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from components.text.params import BertParams

SIZE = BertParams(layers=2, hidden=32, heads=4, intermediate=48, positions=24)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,?", "the", "cat", "sat", "on"]
WORDS += ["mat", "##s", "##ing", "##ed", "a##", "card", "lost", "my", "##e", "##t", "na", "##ive"]


def config(size: BertParams = SIZE) -> dict[str, object]:
    """Return the content of config.json."""
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": len(WORDS),
        "num_hidden_layers": size.layers,
        "hidden_size": size.hidden,
        "num_attention_heads": size.heads,
        "intermediate_size": size.intermediate,
        "max_position_embeddings": size.positions,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }


def tensors(size: BertParams = SIZE) -> dict[str, Tensor]:
    """Return the tensors of model.safetensors."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    found = {
        "embeddings.word_embeddings.weight": random(len(WORDS), size.hidden),
        "embeddings.position_embeddings.weight": random(size.positions, size.hidden),
        "embeddings.token_type_embeddings.weight": random(2, size.hidden),
        "pooler.dense.weight": random(size.hidden, size.hidden),
        "pooler.dense.bias": random(size.hidden),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(size.layers):
        layer = f"encoder.layer.{number}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        linear = {f"attention.self.{part}": (size.hidden, size.hidden) for part in ("query", "key", "value")}
        linear |= {
            "attention.output.dense": (size.hidden, size.hidden),
            "intermediate.dense": (size.intermediate, size.hidden),
            "output.dense": (size.hidden, size.intermediate),
        }
        for name, shape in linear.items():
            found[f"{layer}.{name}.weight"], found[f"{layer}.{name}.bias"] = random(*shape), random(shape[0])
    for name in norms:
        found[f"{name}.weight"], found[f"{name}.bias"] = 1 + random(size.hidden), random(size.hidden)
    return found


def write(folder: Path, size: BertParams = SIZE) -> Path:
    """Write a BERT with a vocab.txt, and return its folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(size)))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    save_file(tensors(size), folder / "model.safetensors")
    return folder
