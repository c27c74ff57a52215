"""python -m benchmarks.beam: beam search with cached keys and values, compared with recomputing each prefix.

Both searches take turns in one process, and are the same code with another `step`: one computes the next position
from the cache, the other computes the decoder anew for the whole prefix, and the vocabulary's logits for its last
position only. The network is the Transformer of Multi30k's profile with random weights; a text ends after exactly
`TOKENS` tokens. Encoding the sources is not measured.
"""

import argparse
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import report
from components.contracts import Batch
from components.text import beam
from components.text.networks.transformer import EncoderDecoder

SENTENCES, BEAM, TOKENS, SOURCE = 32, 5, 50, 25
"""Size of the search, and the number of a source's tokens."""
VOCABULARY, SIZE, HEADS, INNER, LAYERS = 8000, 128, 4, 256, 4
START, END = 1, 2


def cached(network: EncoderDecoder) -> beam.Step:
    """Return the product's step, which never ends a text by itself."""

    def step(last: Tensor, memory: Batch, state: Batch) -> tuple[Tensor, Batch]:
        logits, state = network.step(last, memory, state)
        return _without_end(logits), state

    return step


def recomputing(network: EncoderDecoder) -> beam.Step:
    """Return a step whose state is the prefix, (B, K, T)."""

    def step(last: Tensor, memory: Batch, state: Batch) -> tuple[Tensor, Batch]:
        prefix = torch.cat([*state.values(), last[:, :, None]], 2)
        repeated = {name: tensor.repeat_interleave(last.shape[1], 0) for name, tensor in memory.items()}
        x = network.encoder.embedding(prefix.flatten(0, 1))
        for number, layer in enumerate(network.layers):
            x = layer(x, repeated[f"key{number}"], repeated[f"value{number}"], repeated["mask"])
        logits = network.output(network.norm(x[:, -1])).view(*last.shape, -1)
        return _without_end(logits), {"prefix": prefix}

    return step


def _without_end(logits: Tensor) -> Tensor:
    logits[:, :, END] = -1e9  # not -inf: at the limit, the end must remain possible
    return logits


@torch.inference_mode()
def measured(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of both searches in each round."""
    torch.manual_seed(0)
    network = EncoderDecoder(VOCABULARY, SIZE, HEADS, INNER, LAYERS, dropout=0.0).eval()
    memory = network.encode(
        torch.randint(3, VOCABULARY, (SENTENCES, SOURCE)), torch.full((SENTENCES,), SOURCE, dtype=torch.int64)
    )
    contenders: dict[str, Callable[[], list[list[beam.Hypothesis]]]] = {
        name: lambda step=step: beam.search(  # type: ignore[misc]
            step, memory, [TOKENS] * SENTENCES, START, END, beam.Width(BEAM, 1.0)
        )
        for name, step in (("cache", cached(network)), ("recomputing", recomputing(network)))
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        texts = []
        for name, search in contenders.items():
            started = time.perf_counter()
            texts.append([[each.tokens for each in own] for own in search()])
            seconds[name].append(time.perf_counter() - started)
            print(f"round {number + 1}, {name}: {seconds[name][-1]:.2f} s", flush=True)
        assert texts[0] == texts[1], "both searches must find the same texts"
    return seconds


def main() -> None:
    """Measure, and record the result for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    options = parser.parse_args()
    threads, load = torch.get_num_threads(), os.getloadavg()[0]  # before the benchmark adds to it
    sizes = {"sentences": SENTENCES, "beam": BEAM, "tokens": TOKENS, "threads": threads, "load": load}
    report.record("beam search", sizes | {"seconds": measured(options.rounds)})


if __name__ == "__main__":
    main()
