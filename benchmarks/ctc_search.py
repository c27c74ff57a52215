"""python -m benchmarks.ctc_search FOLDER: prefix search beside torchaudio's decoder, on a trained recogniser.

The folder is what `python -m benchmarks.result PROFILE DATA --keep FOLDER` wrote. Both decoders read what the
network of the first seed says of each test recording, with the n-grams of the training transcripts and no other
words, at the same weights. torchaudio's decoder is that of flashlight-text, in C++.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from components import tasks
from components.contracts import Prepared
from components.sound import prefix_search
from components.sound.prefix_search import WordScore
from components.stages import prepare
from components.tasks.speech_to_text import decoding
from components.tasks.speech_to_text.model import Recogniser
from components.text import ngrams, tokens
from components.training import model_files

WEIGHT, BONUS = 0.5, 0.5
SPACE, BLANK = "|", "-"
"""How torchaudio's decoder writes the token between words and the blank."""


def closed(model: ngrams.Ngrams) -> ngrams.Ngrams:
    """Return n-grams without the unknown word, as torchaudio's decoder finds only those of its lexicon."""
    known = {words: entry for words, entry in model.entries.items() if ngrams.UNKNOWN not in words}
    return ngrams.Ngrams(model.order, known)


def reference(model: Recogniser, words: ngrams.Ngrams, beam: int, folder: Path) -> Any:
    """Return torchaudio's decoder; its language model's logarithms are to base 10."""
    from torchaudio.models.decoder import ctc_decoder  # type: ignore[import-untyped]

    (folder / "model.arpa").write_text(words.arpa())
    lexicon = [f"{word} {' '.join(word)} {SPACE}\n" for word in sorted(words.words)]
    (folder / "lexicon.txt").write_text("".join(lexicon))
    pieces = tokens.pieces(model.tokenizer, range(model.blank))
    return ctc_decoder(
        lexicon=str(folder / "lexicon.txt"),
        tokens=[*(SPACE if piece == " " else piece for piece in pieces), BLANK],
        lm=str(folder / "model.arpa"),
        beam_size=beam,
        beam_threshold=1e4,
        lm_weight=WEIGHT * math.log(10),
        word_score=BONUS,
        log_add=True,
        sil_token=SPACE,
        blank_token=BLANK,
        unk_word="<unk>",
    )


@torch.inference_mode()
def compare(folder: Path, beam: int, scratch: Path) -> tuple[int, int, float]:
    """Return the number of recordings, of those whose transcripts are equal, and how much longer ours takes."""
    task = tasks.load("speech_to_text")
    prepared: Prepared = prepare.load(folder / "prepared")
    model = model_files.rebuild(task, folder / "0" / "model")
    assert isinstance(model, Recogniser), "the task builds no other"
    assert model.ngrams is not None, "the profile counts n-grams"
    words = closed(model.ngrams)
    other = reference(model, words, beam, scratch)
    pieces = tokens.pieces(model.tokenizer, range(model.blank))
    scorer = WordScore(words, pieces, lambda ids: tokens.decode(model.tokenizer, ids), WEIGHT, BONUS)
    split = task.load_split(prepared.folder, "test")
    equal = count = 0
    seconds = [0.0, 0.0]
    for index in range(len(split)):
        batch = split.__getitems__(torch.tensor([index]))
        log_probs, _ = model(batch["sound"], batch["sound_length"])
        began = time.perf_counter()
        found = prefix_search.search(log_probs[0].numpy(), model.blank, beam, scorer)[0]
        between = time.perf_counter()
        (theirs, *_) = other(log_probs)[0]
        seconds = [seconds[0] + between - began, seconds[1] + time.perf_counter() - between]
        count += 1
        equal += decoding.text_of(model, found.tokens) == " ".join(theirs.words)
        print(f"{count} recordings, {equal} equal", flush=True)
    return count, equal, seconds[0] / seconds[1]


def main() -> None:
    """Print the share of equal transcripts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--beam", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        count, equal, ratio = compare(options.folder, options.beam, Path(scratch))
    print(f"{equal} of {count} transcripts are equal ({equal / count:.1%}); ours takes {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
