"""Text files become token ids that give the text back; what cannot be read is rejected with its place."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.datasets import arrays
from components.errors import PedigreeError
from components.tasks.language_model.prepare import LanguageFacts, load_split
from components.text import corpus, tokens
from components.text.corpus import Piece
from components.text.params import TokenizerParams
from tests.tasks.language_model.tiny import text
from tests.tasks.language_model.values import ROOT, prepared, tokenizer, values

DATASETS = ROOT.parent / "shared" / "datasets"


def learnt(name: str, *blocks: str, vocabulary: int = 400, min_count: int = 1):
    return tokens.train(TokenizerParams(name=name, vocabulary=vocabulary, min_count=min_count), blocks)


def facts(done) -> LanguageFacts:
    return LanguageFacts.model_validate(done.manifest.facts)


def decoded(done, split: str) -> str:
    ids = load_split(done.folder, split)["tokens"].to(torch.int64).tolist()
    return tokens.decode(tokens.load(facts(done).tokenizer), ids)


@pytest.mark.parametrize("name", ["char", "bpe"])
def test_one_file_is_cut_at_the_end_and_the_parts_joined_are_the_text(tmp_path, name):
    done = prepared(tmp_path, text(), prepare=tokenizer(name, val_share=0.05, test_share=0.05))
    parts = [decoded(done, split) for split in ("train", "val", "test")]
    assert "".join(parts) == text()
    assert [len(part) / len(text()) for part in parts] == pytest.approx([0.9, 0.05, 0.05], abs=0.001)
    assert facts(done).characters == {
        split: len(part) for split, part in zip(("train", "val", "test"), parts, strict=True)
    }


def test_the_usual_cut_of_shakespeare_is_the_first_nine_tenths(tmp_path):
    done = prepared(tmp_path, "ab" * 557_697, prepare=tokenizer("char", val_share=0.1, test_share=0))
    assert facts(done).characters == {"train": 1_003_854, "val": 111_540, "test": 111_540}
    assert done.manifest.splits["test"].sha256 == done.manifest.splits["val"].sha256


def test_given_files_are_the_splits_and_a_missing_one_is_cut_from_train(tmp_path):
    files = {"train.txt": "one two three four\n" * 10, "valid.txt": "two\n", "test.txt": "three four\n"}
    done = prepared(tmp_path / "all", files, prepare=tokenizer("bpe"))
    assert {split: decoded(done, split) for split in ("train", "val", "test")} == {
        "train": files["train.txt"],
        "val": "two\n",
        "test": "three four\n",
    }
    del files["test.txt"]
    done = prepared(tmp_path / "two", files, prepare=tokenizer("bpe", test_share=0.1))
    assert decoded(done, "val") == "two\n"
    assert decoded(done, "train") + decoded(done, "test") == files["train.txt"]


@pytest.mark.parametrize(("size", "dtype"), [(300, np.uint16), (70_000, np.uint32)])
def test_ids_take_two_bytes_as_long_as_the_vocabulary_lets_them(tmp_path, size, dtype):
    words = " ".join(f"w{i:05d}" for i in range(size))
    done = prepared(
        tmp_path,
        words + " w00001 w00002 w00003\n",
        prepare=tokenizer("word", 2**17, val_share=0.01, test_share=0.01),
    )
    assert np.load(done.folder / "train.tokens.npy").dtype == dtype


def test_words_that_are_rare_or_beyond_the_vocabulary_are_unknown_and_counted(tmp_path):
    files = {"train.txt": "a a a b b c\n", "valid.txt": "a b c d\n", "test.txt": "<unk> a\n"}
    done = prepared(tmp_path, files, prepare=tokenizer("word", vocabulary=4, min_count=2))
    assert facts(done).unknown == {"train": 1, "val": 2, "test": 1}
    assert facts(done).vocabulary == 4
    assert decoded(done, "val") == "a b <unk> <unk>\n"


def test_words_and_line_ends_are_counted_as_wikitext_counts_them(tmp_path):
    valid, test = (DATASETS / "wikitext-2" / f"wiki.{name}.tokens" for name in ("valid", "test"))
    if not valid.exists():
        pytest.skip(f"{DATASETS} is not here")
    files = {"train.txt": valid.read_text(), "valid.txt": "a b\n", "test.txt": test.read_text()}
    done = prepared(tmp_path, files, prepare=tokenizer("word", vocabulary=50_000))
    assert facts(done).tokens["train"] == 217_646
    assert facts(done).tokens["test"] == 245_569


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200)
def test_byte_pairs_give_any_text_back(any_text):
    assert tokens.decode(BPE, tokens.encode(BPE, any_text)) == any_text


BPE = learnt("bpe", text(500))


LEARN = """
import sys
from components.text import params, tokens
chosen = params.TokenizerParams(name="bpe", vocabulary=400, min_count=1)
print(tokens.train(chosen, sys.stdin.read().split("|")).to_str())
"""


def test_byte_pairs_are_learnt_alike_in_every_process():
    blocks = text(3000), text(77)
    other = subprocess.run(
        [sys.executable, "-c", LEARN], cwd=ROOT, input="|".join(blocks), capture_output=True, text=True, check=True
    )
    assert other.stdout == learnt("bpe", *blocks).to_str() + "\n"


def test_equally_frequent_words_stand_in_the_order_of_their_letters():
    vocabulary = learnt("word", "d c b a d\n").get_vocab()
    assert sorted(vocabulary, key=vocabulary.get) == ["<unk>", "<eos>", "d", "a", "b", "c"]


def test_a_character_outside_the_vocabulary_is_one_unknown_token():
    found = learnt("char", "abc\n")
    assert tokens.encode(found, "a€\U0001f600b") == [*tokens.encode(found, "a"), 0, 0, *tokens.encode(found, "b")]
    assert len(tokens.encode(found, "<unk>")) == 5


def test_the_counts_of_training_are_written(tmp_path):
    done = prepared(tmp_path, text(), prepare=tokenizer("char"))
    ids = load_split(done.folder, "train")["tokens"].to(torch.int64)
    counts = arrays.load(done.folder / "counts.npy")
    assert torch.equal(counts, ids.bincount(minlength=facts(done).vocabulary))


@given(
    st.text(alphabet="ab \n", min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(0, 59),
    st.integers(0, 59),
)
def test_blocks_of_any_size_make_up_the_text(tmp_path_factory, any_text, size, one, other):
    file = tmp_path_factory.mktemp("blocks") / "text.txt"
    file.write_bytes(any_text.encode())
    start, stop = sorted(min(index, len(any_text)) for index in (one, other))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "BLOCK", size)
        blocks = list(Piece(file, start, stop).blocks())
        assert corpus.characters(file) == len(any_text)
    assert "".join(blocks) == any_text[start:stop]
    assert all(blocks)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"good\nbad \xff line\n", r"text\.txt:2: byte 9 is not UTF-8"),
        ("ä".encode() + b"\n\xc3", r"text\.txt:2: byte 3 is not UTF-8"),
        (b"one\ntwo\nthr\0ee", r"text\.txt:3: byte 11 is a NUL byte"),
        (b"", r"text\.txt is empty"),
        (b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repeats a single token"),
        (b"abc", "fewer than two characters"),
    ],
)
@pytest.mark.parametrize("block", [3, 2**20])
def test_text_that_cannot_be_used_is_rejected_with_its_place(tmp_path, monkeypatch, content, said, block):
    from components.tasks.language_model.prepare import prepare

    monkeypatch.setattr(corpus, "BLOCK", block)
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    out.mkdir()
    (raw / "text.txt").write_bytes(content)
    with pytest.raises(PedigreeError, match=said):
        prepare(raw, out, values(prepare=tokenizer("char")))


def test_no_text_and_splits_without_a_train_are_said(tmp_path):
    with pytest.raises(PedigreeError, match=r"has no text: put \.txt files there, maybe train\.txt"):
        corpus.splits(tmp_path, values().prepare)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "valid.txt").write_text("b")
    with pytest.raises(
        PedigreeError, match=r"has a\.txt, valid\.txt and no train\.txt: add it, or rename valid\.txt, so that the"
    ):
        corpus.splits(tmp_path, values().prepare)


def test_an_only_file_is_cut_whatever_its_name(tmp_path):
    done = prepared(tmp_path, {"valid.txt": text()}, prepare=tokenizer("char", val_share=0.1, test_share=0.1))
    assert facts(done).characters["train"] == int(0.8 * len(text()))


def test_hidden_files_and_folders_are_no_texts(tmp_path):
    (tmp_path / "._a.txt").write_text("what macOS leaves")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "a.txt").write_text(text())
    assert corpus.splits(tmp_path, values().prepare)["train"].pieces[0].file.name == "a.txt"


def test_where_test_is_val_the_manifest_says_so(tmp_path):
    done = prepared(tmp_path, text(), prepare=tokenizer("char", val_share=0.1, test_share=0))
    assert "tested on validation data" in done.manifest.note


@pytest.mark.parametrize(
    ("names", "resplit", "drawn"),
    [(["train.txt"], 0, True), (["train.txt", "valid.txt"], 0, False), (["train.txt", "valid.txt"], 1, True)],
)
def test_where_test_is_val_something_was_drawn_only_if_val_was_cut(tmp_path, names, resplit, drawn):
    section = tokenizer("char", val_share=0.1, test_share=0, resplit=resplit)
    done = prepared(tmp_path, {name: f"{text()}{name}" for name in names}, prepare=section)
    assert done.manifest.drawn.startswith("characters ") if drawn else not done.manifest.drawn
    assert "tested on validation data" in done.manifest.note


def lines(seed: int, count: int = 200) -> str:
    """Return lines of 12 words each, which no other seed gives."""
    words = np.random.default_rng(seed).integers(0, 10**6, (count, 12))
    return "".join(" ".join(f"w{word}" for word in line) + ".\n" for line in words)


@pytest.mark.parametrize(
    "copied",
    [
        lambda whole: whole,
        lambda whole: "\ufeff" + whole.replace("\n", "\r\n"),
        lambda whole: whole.replace(" ", "  ") + "\n\n",
    ],
    ids=["same bytes", "line ends", "spaces"],
)
@pytest.mark.parametrize(
    "names", [("train.txt", "test.txt"), ("train.txt", "valid.txt"), ("test.txt", "valid.txt")]
)
def test_two_splits_that_are_the_same_text_are_an_error_that_names_both(tmp_path, names, copied):
    files = {name: lines(number) for number, name in enumerate(("train.txt", "valid.txt", "test.txt"))}
    files[names[1]] = copied(files[names[0]])
    one, other = sorted(names)
    with pytest.raises(PedigreeError, match=rf"raw/{one} and .*raw/{other} are the same text: put different texts"):
        prepared(tmp_path, files, prepare=tokenizer("char"))


def test_passages_that_two_splits_share_are_warned_of_and_noted_in_all_results(tmp_path, caplog):
    files = {"train.txt": lines(0), "valid.txt": lines(1), "test.txt": lines(2, 100) + lines(0, 100)}
    with caplog.at_level(logging.WARNING, "pedigree.prepare"):
        done = prepared(tmp_path, files, prepare=tokenizer("char"))
    assert done.manifest.note == "50% of the passages of test are in train, too"
    assert caplog.messages == [
        f"{tmp_path / 'raw'}: {done.manifest.note}: remove them from one of the two, as results mislead"
    ]


def test_passages_of_short_lines_that_begin_elsewhere_are_found(tmp_path):
    verses = lines(0).replace(" ", "\n   ")
    files = {"train.txt": verses, "valid.txt": lines(1), "test.txt": verses[3001:9001]}
    assert (
        "% of the passages of test are in train"
        in prepared(tmp_path, files, prepare=tokenizer("char")).manifest.note
    )


def test_one_text_that_repeats_itself_is_noted_where_it_is_cut(tmp_path):
    done = prepared(tmp_path, lines(0) * 20, prepare=tokenizer("char", val_share=0.1, test_share=0.1))
    assert done.manifest.note.startswith(
        "100% of the passages of test are in val, too; 100% of the passages of test"
    )


def test_texts_that_share_no_more_than_short_lines_are_not_noted(tmp_path, caplog):
    files = {
        name: "Notes:\n\n" + lines(number) + "Notes:\n"
        for number, name in enumerate(("train.txt", "valid.txt", "test.txt"))
    }
    assert prepared(tmp_path, files, prepare=tokenizer("char")).manifest.note == ""
    assert not caplog.messages


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (tokenizer("char", val_share=0.6, test_share=0.5), "leave nothing to train on"),
        (tokenizer("bpe", vocabulary=50), "bpe has a token for each of the 256 bytes"),
    ],
)
def test_parameters_that_contradict_each_other_are_rejected(section, said):
    with pytest.raises(PedigreeError, match=said):
        values(prepare=section)


def test_other_files_are_listed_as_rejected(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "notes.md").write_text("not text for training")
    (tmp_path / "prepared").mkdir()
    (raw / "text.txt").write_text(text())
    from components.tasks.language_model.prepare import prepare

    manifest = prepare(raw, tmp_path / "prepared", values(prepare=tokenizer("char")))
    assert [(r.file, r.reason) for r in manifest.rejected] == [("notes.md", "not one of the texts")]
