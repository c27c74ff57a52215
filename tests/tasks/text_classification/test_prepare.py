"""Texts become tokens and labels, and no test text is learnt by heart."""

import pytest
import torch

from components.contracts import Prepared
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.tasks.text_classification.prepare import TextFacts, load_split, texts_of_test
from components.text import repeats, tokens
from tests.tasks.text_classification import tiny
from tests.tasks.text_classification.tiny import write_csv
from tests.tasks.text_classification.values import prepared, values
from tests.text import bert_folders

WORDS = {"name": "word", "vocabulary": 200}


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def facts(given: Prepared) -> TextFacts:
    return TextFacts.model_validate(given.manifest.facts)


def samples(given: Prepared) -> dict[str, int]:
    return {split: part.samples for split, part in given.manifest.splits.items()}


def reasons(given: Prepared) -> dict[str, str]:
    return {each.file: each.reason for each in given.manifest.rejected}


def text_rows(given: Prepared, split: str) -> list[list[int]]:
    rows = load_split(given.folder, split).ragged["token"]
    return [rows[index].tolist() for index in range(len(rows))]


def test_the_same_share_of_each_class_is_drawn_and_every_text_is_in_one_split(raw, tmp_path):
    tiny.write(raw)
    found = prepared(tmp_path)
    assert sum(samples(found).values()) == 120
    counts = facts(found).counts
    for name in tiny.THINGS:
        whole = sum(counts[split][name] for split in counts)
        assert counts["test"][name] == round(0.2 * whole)
    assert found.manifest.drawn == f"{samples(found)['test']} of 120 texts, the same share of each class"
    names = [name for split in counts for name in file_names(found.folder, split)]
    assert len({*names}) == 120
    assert facts(found).classes == sorted(tiny.THINGS)


def test_the_tokens_and_the_label_of_a_text_are_those_of_its_row(raw, tmp_path):
    tiny.write(raw)
    found = prepared(tmp_path)
    known, tokenizer = dict(tiny.rows()), tokens.load(facts(found).tokenizer)
    split = load_split(found.folder, "test")
    for index, (text,) in enumerate(texts_of_test(found.folder)):
        row = split.ragged["token"][index].tolist()
        assert tokenizer.decode(row) == text
        assert facts(found).classes[split["label"][index]] == known[text]
        assert split["first"][index] == len(row)


def test_texts_that_differ_only_in_case_and_marks_are_in_one_split(raw, tmp_path):
    write_csv(
        raw / "train.csv", [(text + mark, label) for text, label in tiny.rows(60) for mark in ("", "!", " ?")]
    )
    found = prepared(tmp_path, tokenizer=WORDS | {"name": "bpe", "vocabulary": 400, "lowercase": False})
    tokenizer = tokens.load(facts(found).tokenizer)
    keys = {
        split: {repeats.key(tokens.decode(tokenizer, row)) for row in text_rows(found, split)}
        for split in ("train", "val", "test")
    }
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["val"]
    assert found.manifest.rejected == []


def test_a_training_text_that_is_also_tested_on_is_rejected(raw, tmp_path):
    write_csv(raw / "train.csv", tiny.rows())
    write_csv(raw / "test.csv", [(tiny.rows()[0][0].upper() + "!", "tool"), ("a new apple", "fruit")])
    found = prepared(tmp_path)
    assert samples(found)["test"] == 2
    assert reasons(found) == {"train.csv:2": "duplicate of the test text test.csv:2"}


def test_texts_of_a_label_that_occurs_once_are_rejected_where_splits_are_drawn(raw, tmp_path):
    write_csv(
        raw / "train.csv", [*tiny.rows(), ("a lonely text", "once"), ("the second", "twice"), ("2nd", "twice")]
    )
    found = prepared(tmp_path)
    reason = "too few texts of its label to draw test and val from"
    assert reasons(found) == {
        "train.csv:122": f"{reason}: 'once'",
        "train.csv:123": f"{reason}: 'twice'",
        "train.csv:124": f"{reason}: 'twice'",
    }
    (tmp_path / "prepared").rename(tmp_path / "first")
    with pytest.raises(PedigreeError, match=r"3 of 123 .*max_rejected 0\.01:\n  3 like train\.csv:122: too few"):
        prepared(tmp_path, max_rejected=0.01)


@pytest.mark.parametrize(
    ("one", "other"), [("0", "0.0"), ("1", "01"), ("Spam", "spam"), ("10000000000000000", "1e16")]
)
def test_labels_that_hardly_differ_are_said_with_the_number_of_their_texts(raw, tmp_path, caplog, one, other):
    spelt = {"fruit": one, "tool": other}
    write_csv(raw / "train.csv", [(text, spelt.get(label, label)) for text, label in tiny.rows()])
    found = prepared(tmp_path)
    assert {one, other} < {*facts(found).classes}
    counts = {name: sum(1 for _, label in tiny.rows() if label == name) for name in spelt}
    first, second = sorted([(one, counts["fruit"]), (other, counts["tool"])])
    said = f"'{first[0]}' ({first[1]} texts) and '{second[0]}' ({second[1]} texts)"
    assert f"classes of their own: {said}" in found.manifest.note
    assert f"{said}: write them alike if they mean the same" in caplog.text


def test_labels_that_differ_are_not_said_to_be_alike(raw, tmp_path):
    spelt = {"fruit": "10000000000000001", "tool": "10000000000000000", "animal": "nan"}
    write_csv(raw / "train.csv", [(text, spelt[label]) for text, label in tiny.rows()])
    assert prepared(tmp_path).manifest.note == ""


def test_a_hundred_thousand_labels_are_an_error_that_names_the_column(raw, tmp_path):
    write_csv(raw / "train.csv", [(f"text {number}", f"label {number}") for number in range(100_000)])
    with pytest.raises(PedigreeError) as caught:
        prepared(tmp_path)
    assert str(caught.value) == (
        f"{raw} has 100,000 different labels, such as 'label 0', more than 1,000: set prepare.label, now 'label', "
        "to the column of the classes"
    )


def test_a_test_text_with_a_label_that_training_lacks_is_rejected(raw, tmp_path):
    write_csv(raw / "train.csv", tiny.rows())
    write_csv(raw / "test.csv", [("one apple", "fruit"), ("a thing", "Fruit"), ("one fox", "animal")])
    found = prepared(tmp_path)
    assert reasons(found) == {"test.csv:3": "no training text has its label: 'Fruit'"}
    assert facts(found).counts["test"] == {"animal": 1, "fruit": 1, "tool": 0}


def test_texts_out_of_scope_are_tested_on_and_not_learnt(raw, tmp_path):
    foreign = [(f"nothing number {number}", "oos") for number in range(20)]
    write_csv(raw / "train.csv", [*tiny.rows(), *foreign[:5]])
    write_csv(raw / "val.csv", [("a small pear", "fruit"), *foreign[5:8]])
    write_csv(raw / "test.csv", [("the big fox", "animal"), *foreign[8:]])
    found = prepared(tmp_path, out_of_scope="oos")
    assert samples(found) == {"train": 120, "val": 1, "test": 13}
    assert facts(found).classes == sorted(tiny.THINGS)
    assert facts(found).foreign == {"train": 5, "val": 3, "test": 12}
    assert load_split(found.folder, "test")["label"].tolist() == [0, *[-1] * 12]


def test_several_labels_are_a_row_of_zeros_and_ones(raw, tmp_path):
    several = [(text, f"{label}|red" if "red" in text else label) for text, label in tiny.rows()]
    several[0] = (several[0][0], "")
    write_csv(raw / "train.csv", several)
    found = prepared(tmp_path, separator="|")
    assert facts(found).classes == ["animal", "fruit", "red", "tool"]
    split, known = load_split(found.folder, "test"), dict(several)
    assert split["label"].dtype == torch.uint8
    for (text,), row in zip(texts_of_test(found.folder), split["label"].tolist(), strict=True):
        assert [name for name, flag in zip(facts(found).classes, row, strict=True) if flag] == sorted(
            filter(None, known[text].split("|"))
        )


def test_of_a_pair_it_is_known_where_the_second_text_begins(raw, tmp_path):
    folder = bert_folders.write(tmp_path / "bert")
    pairs = [(text, "the cat", label) for text, label in tiny.rows()]
    write_csv(raw / "train.csv", pairs, ("text", "other", "label"))
    tokenizer = {"name": "wordpiece", "from": str(folder / "vocab.txt")}
    found = prepared(tmp_path, pair="other", tokenizer=tokenizer, longest=128)
    split, read = load_split(found.folder, "train"), tokens.load(facts(found).tokenizer)
    for index in range(5):
        pieces = [read.id_to_token(each) for each in split.ragged["token"][index].tolist()]
        assert pieces[split["first"][index] :] == ["the", "cat", "[SEP]"]
        assert pieces[split["first"][index] - 1] == "[SEP]"
    assert texts_of_test(found.folder)[0][1] == "the cat"


def test_the_tokenizer_is_learnt_from_training_texts_alone(raw, tmp_path):
    write_csv(raw / "train.csv", tiny.rows())
    write_csv(raw / "test.csv", [("zebra apple", "fruit"), ("zebra fox", "animal")])
    vocabulary = tokens.load(facts(prepared(tmp_path)).tokenizer).get_vocab()
    assert "zebra" not in vocabulary
    assert "apple" in vocabulary


def test_texts_that_are_cut_are_said_beside_all_results(raw, tmp_path):
    write_csv(raw / "train.csv", [*tiny.rows(), ("word " * 17, "fruit")])
    write_csv(raw / "test.csv", [("an apple", "fruit")])
    found = prepared(tmp_path)
    assert (
        found.manifest.note == "1 of 122 texts have more than prepare.longest (16) tokens, and are cut at the end"
    )
    assert max(map(len, text_rows(found, "train"))) == 16


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ([("a", ""), ("b", "")], {}, r"2 of 2 files cannot be used, .*:\n  2 like train\.csv:2: it has no label"),
        (
            [(f"text {n}", "x") for n in range(20)],
            {},
            r"all training texts have the label 'x': add texts of another$",
        ),
        (
            [(f"text {n}", "x|y") for n in range(20)],
            {"separator": "|"},
            r"all training texts have the label x, y: add",
        ),
        ([("a", ""), ("b", "")], {"separator": "|"}, r"has no text with a label: add some$"),
        ([("a", "x"), ("b", "y")], {}, r"too few to draw test from them: add some$"),
        (
            tiny.rows(),
            {"out_of_scope": "oos"},
            r"has no text with the label 'oos' of prepare\.out_of_scope: set it to",
        ),
    ],
)
def test_texts_that_nothing_can_be_learnt_from_are_an_error(raw, tmp_path, rows, options, expected):
    write_csv(raw / "train.csv", rows)
    with pytest.raises(PedigreeError, match=expected):
        prepared(tmp_path, **options)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"prepare": {"pair": "label"}}, "text, pair and label have to name different columns"),
        ({"prepare": {"separator": "|", "out_of_scope": "oos"}}, "out_of_scope is for texts with one label"),
        ({"train": {"model": {"network": "transformer", "heads": 3}}}, "size 16 cannot be divided among 3 heads"),
        (
            {"train": {"model": {"network": "bert"}}, "prepare": {"longest": 64}},
            r"prepare\.longest 64 is more than the 32 positions of the bert: set it to at most 32",
        ),
    ],
)
def test_parameters_that_contradict_each_other_are_named(sections, expected):
    with pytest.raises(PedigreeError, match=expected):
        values(**sections)
