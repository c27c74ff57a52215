"""Texts and labels are read from tables and folders as people have them."""

import json

import pytest

from components.errors import PedigreeError
from components.runtime import progress
from components.tasks.text_classification import texts
from components.tasks.text_classification.texts import NO_LABEL, Text, Texts
from components.text import tables
from tests.tasks.text_classification.tiny import write_csv
from tests.tasks.text_classification.values import values


def read(folder, **options) -> Texts:
    return texts.read(folder, values(prepare=options).prepare)


def found(folder, split="train", **options) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(text.texts, text.labels) for text in read(folder, **options).splits[split]]


def reasons(given: Texts) -> dict[str, str]:
    return {each.file: each.reason for each in given.rejected}


def test_a_csv_has_a_column_for_the_text_and_one_for_the_label(tmp_path):
    write_csv(
        tmp_path / "train.csv", [("1", "spam", "buy, now"), ("2", "ham", "hi\nthere")], ("id", "kind", "mail")
    )
    assert read(tmp_path, text="mail", label="kind").splits["train"] == [
        Text("train.csv:2", ("buy, now",), ("spam",)),
        Text("train.csv:3", ("hi\nthere",), ("ham",)),
    ]


@pytest.mark.parametrize("word", ["NA", "null", "None", "nan", "0", "-1"])
def test_no_word_is_a_missing_label_or_a_missing_text(tmp_path, word):
    write_csv(tmp_path / "train.csv", [(word, "x"), ("text", word)])
    assert found(tmp_path) == [((word,), ("x",)), (("text",), (word,))]


def test_the_test_part_of_glue_has_no_labels_and_is_left_out(tmp_path, caplog):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\nit 's \"good\t1\r\nbad\t0\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tunknown\n")
    given = read(tmp_path, text="sentence")
    assert {split: len(own) for split, own in given.splits.items()} == {"train": 2, "val": 2}
    assert given.splits["train"][0].texts == ("it 's \"good",)
    assert (given.ignored, given.rejected) == (["test.tsv"], [])
    assert "test.tsv has no labels and is not used: test on a file with labels" in caplog.text


@pytest.mark.parametrize("label", ["-1", ""])
def test_labels_that_are_withheld_from_the_whole_test_part_are_none(tmp_path, label):
    write_csv(tmp_path / "train.csv", [("a", "x"), ("b", "y")])
    write_csv(tmp_path / "test.csv", [("c", label), ("d", label)])
    given = read(tmp_path)
    assert ([*given.splits], given.ignored) == (["train"], ["test.csv"])


def test_a_row_without_a_label_is_rejected_and_the_others_are_not(tmp_path):
    write_csv(tmp_path / "train.csv", [("a", "x"), ("b", " "), ("c", "y")])
    write_csv(tmp_path / "test.csv", [("d", "x"), ("e", "-1")])
    given = read(tmp_path)
    assert reasons(given) == {"train.csv:3": NO_LABEL, "test.csv:3": NO_LABEL}
    assert [len(own) for own in given.splits.values()] == [2, 1]


def test_without_a_header_columns_have_numbers_and_a_title_is_read_with_its_text(tmp_path):
    (tmp_path / "train.csv").write_text('"3","Title","Body, with a comma"\n"4","Other","Text"\n')
    options = {"header": False, "label": "1", "text": "2", "pair": "3"}
    assert found(tmp_path, **options) == [(("Title", "Body, with a comma"), ("3",)), (("Other", "Text"), ("4",))]


def test_several_labels_are_in_a_cell_or_in_a_list(tmp_path):
    write_csv(tmp_path / "train.csv", [("a", "joy|love"), ("b", ""), ("c", " joy | joy |")])
    expected = [(("a",), ("joy", "love")), (("b",), ()), (("c",), ("joy",))]
    assert found(tmp_path, separator="|") == expected
    lines = [{"text": "a", "label": ["love", "joy"]}, {"text": "b", "label": []}, {"text": "c", "label": "joy"}]
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert found(tmp_path, separator="|") == expected
    assert reasons(read(tmp_path))["train.jsonl:1"].startswith(
        "'label' holds a list, and prepare.separator is empty"
    )


def test_labels_of_json_may_be_numbers_and_null_is_none(tmp_path):
    lines = [{"text": "a", "label": 1}, {"text": "b", "label": None}, {"text": 3, "label": True}, {"label": 1}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert found(tmp_path) == [(("a",), ("1",)), (("3",), ("true",))]
    assert reasons(read(tmp_path)) == {
        "train.jsonl:2": "'label' holds null, and no text",
        "train.jsonl:4": "it has no 'text'",
    }


def test_folders_of_text_files_are_classes_also_with_splits_and_unlabelled_texts(tmp_path):
    for name in ("train/pos/1.txt", "train/neg/1.txt", "train/unsup/1.txt", "test/pos/1.txt", "train/neg/2.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}\n")
    (tmp_path / "train/neg/3.txt").write_bytes(b"caf\xe9")
    (tmp_path / "train/neg/4.pdf").write_text("x")
    given = read(tmp_path)
    assert given.splits["test"] == [Text("test/pos/1.txt", ("text of test/pos/1.txt",), ("pos",))]
    assert [text.labels for text in given.splits["train"]] == [("neg",), ("neg",), ("pos",)]
    assert (given.ignored, given.total) == (["train/unsup"], 5)
    assert reasons(given) == {
        "train/neg/3.txt": "byte 4 is not UTF-8: save the file as UTF-8",
        "train/neg/4.pdf": "not a .txt file",
    }


def test_a_stray_quotation_mark_that_joins_rows_is_noticed_and_line_ends_in_a_text_are_none(tmp_path):
    (tmp_path / "train.csv").write_text(
        'text,label\nfirst,x\n"stray,x\nb,y\nof 11",y\n"two\nlines, of text",x\nc,y\n'
    )
    given = read(tmp_path)
    assert reasons(given) == {"train.csv:3": tables.JOINED}
    assert ("two\nlines, of text",) in [text.texts for text in given.splits["train"]]


def test_rows_that_a_stray_quotation_mark_joins_are_noticed_although_one_has_a_comma_in_its_text(tmp_path):
    (tmp_path / "train.csv").write_text(
        'text,label\nfirst,x\nsecond,y\n"stray, and more,x\nb,y\nc, d,x\nof 11",y\n"one, two\nthree",y\n'
    )
    given = read(tmp_path)
    assert reasons(given) == {"train.csv:4": tables.JOINED}
    assert ("one, two\nthree",) in [text.texts for text in given.splits["train"]]


def test_a_first_line_of_json_without_a_label_does_not_hide_the_labels_of_the_others(tmp_path):
    lines = ['{"text": "none"}', *(json.dumps({"text": f"text {n}", "label": "ab"[n % 2]}) for n in range(4))]
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("\n".join(lines))
    given = read(tmp_path)
    assert {split: len(own) for split, own in given.splits.items()} == {"train": 4, "test": 4}
    assert reasons(given) == {f"{name}.jsonl:1": "it has no label" for name in ("train", "test")}


@pytest.mark.parametrize("column", ["text", "label"])
def test_half_of_a_surrogate_pair_is_rejected_with_its_line(tmp_path, column):
    good = [{"text": f"text {n} \U0001f600", "label": "ab"[n % 2]} for n in range(4)]
    lines = [json.dumps(each) for each in [*good, good[0] | {column: "half \ud800"}]]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    given = read(tmp_path)
    assert reasons(given) == {
        "train.jsonl:5": "one of its characters is half of a surrogate pair: write whole characters"
    }
    assert len(given.splits["train"]) == 4


def test_a_text_that_cannot_be_used_is_rejected_with_its_line(tmp_path):
    write_csv(
        tmp_path / "train.csv", [("a", "x"), (" ", "x"), ("caf\ufffd", "y"), ("b", "y" * 201), ("c", "y", "z")]
    )
    assert reasons(read(tmp_path)) == {
        "train.csv:3": "the text is empty",
        "train.csv:4": "U+FFFD stands for characters that were lost when the text was converted",
        "train.csv:5": "a label of over 200 characters",
        "train.csv:6": "3 cells under 2 columns, with a comma between cells: put cells that have one in their text "
        "between quotation marks",
    }


def test_a_column_that_is_missing_is_named_with_those_that_are_there(tmp_path):
    write_csv(tmp_path / "train.csv", [("a", "x")], ("sentence", "label"))
    with pytest.raises(
        PedigreeError, match=r"has the columns 'sentence', 'label', and none is called 'text': set pre"
    ):
        read(tmp_path)
    with pytest.raises(PedigreeError, match=r"none is called 'class': set prepare\.label to one of them"):
        read(tmp_path, text="sentence", label="class")
    with pytest.raises(PedigreeError, match=r"the columns '1', '2', as prepare\.header is false, and none"):
        read(tmp_path, header=False)


def test_without_texts_for_training_it_is_said_what_is_expected(tmp_path):
    with pytest.raises(
        PedigreeError, match=r"no texts to train on: put a table there, such as train\.csv, or folders"
    ):
        read(tmp_path)
    write_csv(tmp_path / "test.csv", [("a", "x")])
    with pytest.raises(PedigreeError, match=r"has tables only for test: add one for training, such as train\.csv"):
        read(tmp_path)


def test_files_that_are_not_read_are_listed(tmp_path):
    write_csv(tmp_path / "train.csv", [("a", "x")])
    for name in ("notes.txt", "README.md", "other.csv"):
        (tmp_path / name).write_text("about")
    given = read(tmp_path)
    assert (given.ignored, [*reasons(given)]) == (["README.md"], ["notes.txt", "other.csv"])


def test_progress_is_reported_where_many_texts_take_long(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1)
    write_csv(tmp_path / "train.csv", [("a", "x"), ("b", "y")])
    with caplog.at_level("INFO", "pedigree.prepare"):
        read(tmp_path)
    assert caplog.messages[-1].endswith("train.csv: 1 texts read")
