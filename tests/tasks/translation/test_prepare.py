"""Pairs become token ids that lose nothing, and no text is on both sides of a split."""

import pytest

from components.contracts import Manifest
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.tasks.translation.prepare import (
    END,
    SOURCE,
    START,
    TARGET,
    TranslationFacts,
    load_split,
    texts,
)
from components.text import repeats, tokens
from tests.tasks.translation import tiny
from tests.tasks.translation.values import prepared


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def sides(folder, manifest: Manifest, split: str) -> list[tuple[str, str]]:
    facts = TranslationFacts.model_validate(manifest.facts)
    return list(zip(*(texts(folder, split, side, facts) for side in (SOURCE, TARGET)), strict=True))


def test_each_pair_is_in_one_split_as_it_was_read(raw, tmp_path):
    tiny.write(raw)
    found = prepared(tmp_path)
    parts = {split: sides(found.folder, found.manifest, split) for split in ("train", "val", "test")}
    assert sorted(pair for own in parts.values() for pair in own) == sorted(tiny.pairs())
    assert {split: len(own) for split, own in parts.items()} == {"train": 92, "val": 10, "test": 18}
    assert found.manifest.drawn == "18 of 120 pairs, with all translations of a text"
    lines = (raw / "train.en").read_text().split("\n")
    for name, (source, _) in zip(file_names(found.folder, "test"), parts["test"], strict=True):
        assert lines[int(name.removeprefix("train.en:")) - 1] == source


def test_any_text_is_restored_from_its_tokens(raw, tmp_path):
    odd = ("Ünïcödé \u2028 <start of text> \t👩‍💻 ", f"  {START} {END} \u00a0x")
    tiny.write_parallel(raw, "train", tiny.pairs())
    tiny.write_parallel(raw, "test", [odd])
    found = prepared(tmp_path)
    assert sides(found.folder, found.manifest, "test") == [(odd[0].strip(), odd[1].strip())]


def test_both_sides_end_with_a_token_that_no_text_has(raw, tmp_path):
    tiny.write_parallel(raw, "train", [*tiny.pairs(), (f"{END}{START}", START)])
    found = prepared(tmp_path)
    facts = TranslationFacts.model_validate(found.manifest.facts)
    tokenizer = tokens.load(facts.tokenizer)
    assert (tokenizer.id_to_token(facts.start), tokenizer.id_to_token(facts.end)) == (START, END)
    for side in (SOURCE, TARGET):
        rows = load_split(found.folder, "train").ragged[side]
        for index in range(len(rows)):
            *inner, last = rows[index].tolist()
            assert last == facts.end
            assert not {facts.start, facts.end} & {*inner}


def test_the_tokenizer_is_learnt_from_training_texts_alone(raw, tmp_path):
    tiny.write_parallel(raw, "train", tiny.pairs())
    tiny.write_parallel(raw, "test", [("zzzzzzzz", "qqqqqqqq")] * 30)
    vocabulary = tokens.load(
        TranslationFacts.model_validate(prepared(tmp_path).manifest.facts).tokenizer
    ).get_vocab()
    assert "zz" not in vocabulary
    assert "hund" in vocabulary


def test_all_translations_of_a_text_are_in_one_split_also_if_its_case_and_marks_differ(raw, tmp_path):
    several = [(source + mark, target + mark) for source, target in tiny.pairs(60) for mark in ("", "!", "...")]
    several += [(source.upper(), f"{target}?") for source, target in tiny.pairs(60)]
    tiny.write_parallel(raw, "train", several)
    found = prepared(tmp_path)
    keys = {
        split: {repeats.key(source) for source, _ in sides(found.folder, found.manifest, split)}
        for split in ("train", "val", "test")
    }
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["val"]
    assert not keys["val"] & keys["test"]
    assert found.manifest.rejected == []


def test_a_pair_that_is_also_tested_on_is_rejected_from_training(raw, tmp_path):
    tiny.write_parallel(raw, "train", tiny.pairs())
    tiny.write_parallel(raw, "test", [*tiny.pairs()[:2], ("two blue dogs", "hund blu du")])
    found = prepared(tmp_path)
    assert found.manifest.drawn == ""
    assert found.manifest.splits["test"].samples == 3
    assert [(each.file, each.reason) for each in found.manifest.rejected] == [
        ("train.en:1", "duplicate of the test text test.en:1"),
        ("train.en:2", "duplicate of the test text test.en:2"),
    ]


def test_more_rejected_pairs_than_allowed_are_an_error_that_lists_them(raw, tmp_path):
    tiny.write_parallel(raw, "train", [*tiny.pairs(), *[("cat", "")] * 10])
    with pytest.raises(
        PedigreeError, match=r"10 of 130 .* more than prepare\.max_rejected 0\.05:\n  10 like train"
    ):
        prepared(tmp_path)
    assert (tmp_path / "rejected.json").exists()
    assert not (tmp_path / "prepared" / "train.source.values.npy").exists()


def test_files_that_are_not_read_are_listed(raw, tmp_path):
    tiny.write(raw)
    (raw / "notes.txt").write_text("about nothing")
    found = prepared(tmp_path)
    assert [each.file for each in found.manifest.rejected] == ["notes.txt"]
    assert found.manifest.ignored == ["README.txt"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("same", "same")], r"has no pair of different texts in en and xx: add some$"),
        ([("one", "uno"), ("One!", "Uno!")], r"1 different texts for training are too few to draw test from them"),
        ([("one", "uno"), ("two", "du")], r"2 different texts for training are too few to draw test from them"),
    ],
)
def test_too_few_pairs_are_an_error(raw, tmp_path, lines, expected):
    tiny.write_parallel(raw, "train", lines)
    with pytest.raises(PedigreeError, match=expected):
        prepared(tmp_path)


def test_texts_that_are_tokenised_already_are_noticed_where_bleu_would_do_it_again(raw, tmp_path, caplog):
    tiny.write_parallel(raw, "train", [(f"{source} .", f"{target} .") for source, target in tiny.pairs()])
    found = prepared(tmp_path)
    assert found.manifest.note == "100% of the test translations end with ' .', as tokenised texts do"
    assert "set prepare.bleu.tokenizer to none" in caplog.text


def test_texts_that_are_tokenised_already_are_fine_where_bleu_does_not_do_it(raw, tmp_path, caplog):
    tiny.write_parallel(raw, "train", [(f"{source} .", f"{target} .") for source, target in tiny.pairs()])
    assert prepared(tmp_path, bleu={"tokenizer": "none", "case": "lc"}).manifest.note == ""
    assert caplog.text == ""
