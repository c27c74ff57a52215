"""Tables of texts hold what was written: quotation marks, line ends and words like NA included."""

import gzip
import json
from pathlib import Path

import pytest

from components.datasets.ingest import Unusable
from components.errors import PedigreeError
from components.text import class_folders, lines, tables
from components.text.tables import BadRow, Row

CRLF = "\r\n"


def rows(folder: Path, name: str, content: str | bytes, header: bool = True) -> list[Row | BadRow]:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(tables.opened(file, header).rows())


def cells(folder: Path, name: str, content: str | bytes, header: bool = True) -> list[list[object]]:
    found = rows(folder, name, content, header)
    assert not [row for row in found if isinstance(row, BadRow)]
    return [list(row.cells.values()) for row in found]


@pytest.mark.parametrize("word", ["NA", "null", "None", "nan", "", "01", "1e5"])
def test_no_word_becomes_a_missing_value_or_a_number(tmp_path, word):
    assert cells(tmp_path, "t.csv", f"text,label\nyes,{word}\n") == [["yes", word]]
    assert cells(tmp_path, "t.tsv", f"text\tlabel\nyes\t{word}\n") == [["yes", word]]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert cells(tmp_path, "t.csv", b"\xef\xbb\xbf" + b"text,label\na,b\n") == [["a", "b"]]
    assert tables.opened(tmp_path / "t.csv").columns == ("text", "label")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_no_other_character_than_a_line_feed_ends_a_row(tmp_path, mark):
    assert cells(tmp_path, "t.tsv", f"text\tlabel\none{mark}two\tx\nthree\ty\n") == [
        [f"one{mark}two", "x"],
        ["three", "y"],
    ]
    (tmp_path / "t.txt").write_text(f"one{mark}two\nthree", encoding="utf-8")
    assert [text for _, text in lines.lines(tmp_path / "t.txt")] == [f"one{mark}two", "three"]


def test_lines_may_end_with_a_carriage_return(tmp_path):
    for name, between in (("t.csv", ","), ("t.tsv", "\t")):
        assert cells(tmp_path, name, CRLF.join([f"a{between}b", f"1{between}2", ""])) == [["1", "2"]]


def test_a_quotation_mark_of_a_tsv_is_a_character(tmp_path):
    assert cells(tmp_path, "t.tsv", 'text\tlabel\n"lone\tx\nsecond\ty\n') == [['"lone', "x"], ["second", "y"]]


def test_a_quoted_cell_of_a_csv_may_hold_commas_and_line_ends(tmp_path):
    (row,) = rows(tmp_path, "t.csv", 'text,label\n"one, a, ""two""\nthree",x\n')
    assert row == Row(2, {"text": 'one, a, "two"\nthree', "label": "x"})


def test_a_stray_quotation_mark_of_a_csv_is_said_with_the_line_on_which_its_row_begins(tmp_path):
    with pytest.raises(PedigreeError, match=r"t\.csv:3: the row that begins here is not CSV .*has to be doubled"):
        rows(tmp_path, "t.csv", 'text,label\na,x\n"stray,x\nsaid "no" twice,y\n')
    with pytest.raises(PedigreeError, match=r"t\.csv:2: .*unexpected end of data"):
        rows(tmp_path, "t.csv", 'text,label\n"stray,x\nb,y\n')


def test_a_row_that_swallowed_others_has_them_as_they_would_be_by_themselves(tmp_path):
    first, second = rows(tmp_path, "t.csv", 'text,label\n"stray,x\nb,y\nof 11",z\nlast,x\n')
    assert first.cells == {"text": "stray,x\nb,y\nof 11", "label": "z"}
    assert [each["label"] for each in first.swallowed] == ["x", "y", "z"]
    assert second.swallowed == ()


def test_a_row_with_other_cells_than_columns_is_rejected_with_its_line_and_the_others_are_not(tmp_path):
    found = rows(tmp_path, "t.csv", "text,label\nyes, or no,x\nb,y\n")
    assert found[0] == BadRow(
        2,
        "3 cells under 2 columns, with a comma between cells: put cells that have one in their text between "
        "quotation marks",
    )
    assert found[1].cells == {"text": "b", "label": "y"}
    assert rows(tmp_path, "t.tsv", "a\tb\nonly\n") == [
        BadRow(2, "1 cells under 2 columns, with a tab between cells")
    ]


def test_semicolons_may_separate_the_cells_of_a_csv_and_tabs_may_not(tmp_path):
    assert cells(tmp_path, "t.csv", 'text;label\n"a;b";x\n1,5;y\n') == [["a;b", "x"], ["1,5", "y"]]
    with pytest.raises(PedigreeError, match=r"t\.csv:1: tabs are between its cells: rename it to t\.tsv"):
        rows(tmp_path, "t.csv", "text\tlabel\na\tx\n")


def test_a_table_without_a_header_has_numbered_columns(tmp_path):
    (row,) = rows(tmp_path, "t.csv", '"3","Title","Body"\n', header=False)
    assert row == Row(1, {"1": "3", "2": "Title", "3": "Body"})


def test_a_line_of_json_is_a_row_and_a_line_that_is_none_is_rejected(tmp_path):
    found = rows(tmp_path, "t.jsonl", '{"text": "a\\nb", "label": ["x", "y"]}\n\n{"text": \n[1]\n')
    assert found == [
        Row(1, {"text": "a\nb", "label": ["x", "y"]}),
        BadRow(3, "not JSON: Expecting value"),
        BadRow(4, "not a JSON object"),
    ]
    with pytest.raises(PedigreeError, match="no JSON object on a line of its own"):
        rows(tmp_path, "t.jsonl", json.dumps([{"text": "a"}], indent=1))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_a_line_of_fifty_megabytes_is_rejected_and_the_rows_around_it_are_not(tmp_path, name):
    between = {".csv": ",", ".tsv": "\t"}.get(Path(name).suffix)
    written = [f'{{"text": "{text}", "label": "x"}}' for text in ("a", "b" * 50_000_000, "c")]
    if between:
        written = [f"text{between}label", *(f"{text}{between}x" for text in ("a", "b" * 50_000_000, "c"))]
    first, long, last = rows(tmp_path, name, "\n".join(written))
    assert (first.cells["text"], last.cells["text"]) == ("a", "c")
    assert long == BadRow(last.line - 1, "over 1,048,576 bytes in a line")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        ("text,label\na,b\n".encode("utf-16"), "UTF-16"),
        ("text,label\na,b\n".encode("utf-16-le"), "UTF-16"),
        (b"text,label\na,b\xe9\n", r"t\.csv:2: byte 4 is not UTF-8"),
        (b"text,label\na\0,b\n", r"t\.csv:2: byte 2 is NUL"),
        (b"PK\x03\x04rest", "a ZIP archive, and no text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"text,text\na,b\n", "two columns are called 'text'"),
        (b"text,,\na,b\n", "two columns have no name"),
    ],
)
def test_a_file_that_is_no_table_is_rejected_with_one_sentence(tmp_path, content, problem):
    with pytest.raises(PedigreeError, match=problem) as found:
        rows(tmp_path, "t.csv", content)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@pytest.mark.parametrize("count", [1, 200_000])
def test_lines_that_end_with_carriage_returns_alone_are_said_to(tmp_path, name, count):
    between = "\t" if name == "t.tsv" else ","
    written = ['{"text": "a", "label": "b"}'] if name == "t.jsonl" else [f"text{between}label", f"a{between}b"]
    with pytest.raises(PedigreeError, match=r":1: its lines end with carriage returns alone: save it with"):
        rows(tmp_path, name, "\r".join([*written * count, ""]).encode() + b"{}")


def test_a_carriage_return_within_a_line_is_part_of_it_and_in_a_csv_needs_quotation_marks(tmp_path):
    assert cells(tmp_path, "t.tsv", b"a\tb\n1\r\t2\n") == [["1\r", "2"]]
    assert cells(tmp_path, "t.csv", b'a,b\n"1\r1",2\n') == [["1\r1", "2"]]
    with pytest.raises(
        PedigreeError, match=r"t\.csv:3: the row that begins here has a carriage return within a line"
    ):
        rows(tmp_path, "t.csv", b"a,b\n1,2\n1\r1,2\n")


def test_a_compressed_table_reads_like_any_other(tmp_path):
    assert cells(tmp_path, "t.tsv.gz", gzip.compress(b"a\tb\n1\t2\n")) == [["1", "2"]]
    with pytest.raises(PedigreeError, match=r"t\.csv\.gz cannot be unpacked"):
        rows(tmp_path, "t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000)[:50])
    with pytest.raises(PedigreeError, match=r"t\.csv\.gz cannot be unpacked"):
        rows(tmp_path, "t.csv.gz", b"no gzip\n")


def test_files_of_splits_are_found_under_their_usual_names_and_a_single_one_is_train(tmp_path):
    for name in ("Train.TSV", "dev.tsv", "notes.json"):
        (tmp_path / name).write_text("a\tb\n")
    assert tables.find(tmp_path) == {"train": tmp_path / "Train.TSV", "val": tmp_path / "dev.tsv"}
    (tmp_path / "valid.csv.gz").write_bytes(b"")
    with pytest.raises(PedigreeError, match="are each the split val"):
        tables.find(tmp_path)
    for name in ("Train.TSV", "dev.tsv", "valid.csv.gz"):
        (tmp_path / name).unlink()
    (tmp_path / "reviews.csv").write_text("a,b\n")
    assert tables.find(tmp_path) == {"train": tmp_path / "reviews.csv"}
    (tmp_path / "more.csv").write_text("a,b\n")
    with pytest.raises(PedigreeError, match=r"several tables, more\.csv, reviews\.csv: name them as splits"):
        tables.find(tmp_path)


def test_a_version_may_follow_the_split_in_a_name_as_in_squads_files(tmp_path):
    for name in ("train-v1.1.json", "dev-v2.0.json"):
        (tmp_path / name).write_text("{}")
    expected = {"train": tmp_path / "train-v1.1.json", "val": tmp_path / "dev-v2.0.json"}
    assert tables.find(tmp_path, (".json",)) == expected


def test_a_cell_holds_text_or_says_what_else_it_holds():
    row = Row(1, {"text": "a", "number": 3, "flag": True, "none": None, "list": ["a"]})
    assert [tables.text_in(row, name) for name in ("text", "number", "flag")] == ["a", "3", "true"]
    for name, problem in (("none", "null"), ("list", "list"), ("other", "it has no 'other'")):
        with pytest.raises(Unusable, match=problem):
            tables.text_in(row, name)


def test_a_text_that_lost_characters_in_a_conversion_is_not_used():
    assert lines.expect_usable("  caf\u00e9 \n") == "caf\u00e9"
    for text, problem in (("caf\ufffd", "characters that were lost"), (" \u3000", "empty")):
        with pytest.raises(Unusable, match=problem):
            lines.expect_usable(text)


def write(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}")


def test_folders_of_classes_are_found_with_splits_or_without(tmp_path):
    write(tmp_path / "plain", "pos/1.txt", "pos/2.txt", "neg/1.txt", "README", "pos/x.pdf", "stray.txt")
    found = class_folders.survey(tmp_path / "plain")
    assert found.files == {"train": {"neg": ["neg/1.txt"], "pos": ["pos/1.txt", "pos/2.txt"]}}
    assert found.strays == {"pos/x.pdf": "not a .txt file", "stray.txt": "outside the class folders"}
    assert found.ignored == ["README"]
    write(
        tmp_path / "split",
        "train/pos/1.txt",
        "train/neg/1.txt",
        "test/pos/1.txt",
        "train/unsup/1.txt",
        "imdb.vocab",
    )
    found = class_folders.survey(tmp_path / "split")
    assert found.files == {
        "train": {"neg": ["train/neg/1.txt"], "pos": ["train/pos/1.txt"]},
        "test": {"pos": ["test/pos/1.txt"]},
    }
    assert found.ignored == ["train/unsup"], "texts without a class"


def test_a_folder_without_texts_and_a_split_with_two_folders_are_rejected(tmp_path):
    with pytest.raises(PedigreeError, match="no texts to train on"):
        class_folders.survey(tmp_path)
    write(tmp_path, "val/a/1.txt", "dev/a/1.txt", "train/a/1.txt")
    with pytest.raises(PedigreeError, match="are each the folder of val"):
        class_folders.survey(tmp_path)


def test_a_text_file_is_read_whole_or_rejected_with_the_reason(tmp_path):
    (tmp_path / "1.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    assert class_folders.read(tmp_path, "1.txt") == "one\ntwo\n"
    for content, problem in ((b"", "empty"), (b"caf\xe9", "byte 4 is not UTF-8"), (b"a" * 2**21, "over 1,048,576")):
        (tmp_path / "2.txt").write_bytes(content)
        with pytest.raises(Unusable, match=problem):
            class_folders.read(tmp_path, "2.txt")
