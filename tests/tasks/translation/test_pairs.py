"""Which files have the pairs, how they are read, and what is said of those that cannot be used."""

import codecs
import gzip
import json

import pytest

from components.errors import PedigreeError
from components.tasks.translation import drift, pairs
from components.tasks.translation.pairs import Pair
from components.text import tables
from tests.tasks.translation import tiny
from tests.tasks.translation.values import values

TEXTS = [("one cat", "kat uno"), ("two dogs", "hund du"), ("a blue dog", "hund blu")]


def read(raw, **options):
    return pairs.read(raw, values(prepare=options).prepare)


def survey(raw, **options):
    return pairs.survey(raw, values(prepare=options).prepare)


def sides(found, split="train"):
    return [(pair.source, pair.target) for pair in found.splits[split]]


def test_parallel_files_are_read_line_by_line_and_each_pair_knows_its_line(tmp_path):
    tiny.write_parallel(tmp_path, "train", TEXTS)
    tiny.write_parallel(tmp_path, "dev", TEXTS[:1])
    found = read(tmp_path)
    assert sides(found) == TEXTS
    assert found.splits["val"] == [Pair("dev.en:1", *TEXTS[0])]
    assert [pair.at for pair in found.splits["train"]] == ["train.en:1", "train.en:2", "train.en:3"]


def test_files_may_be_compressed_and_have_more_suffixes_and_other_languages_beside_them(tmp_path):
    tiny.write_parallel(tmp_path, "train.lc.norm.tok", TEXTS)
    for suffix in ("en", "xx"):
        file = tmp_path / f"train.lc.norm.tok.{suffix}"
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    (tmp_path / "train.lc.norm.tok.fr").write_text("chat\n")
    (tmp_path / "LICENSE").write_text("free")
    options = values().prepare
    found = pairs.survey(tmp_path, options)
    assert sides(pairs.read(tmp_path, options)) == TEXTS
    assert pairs.strays(tmp_path, found) == ["train.lc.norm.tok.fr"]


def test_a_tsv_has_a_column_for_each_language_and_maybe_others(tmp_path):
    (tmp_path / "train.tsv").write_text("id\ten\txx\n1\tone cat\tkat uno\n2\tNA\tnull\n")
    assert sides(read(tmp_path)) == [("one cat", "kat uno"), ("NA", "null")]


def test_a_tsv_without_a_header_has_numbered_columns(tmp_path):
    (tmp_path / "pairs.tsv").write_text('one "cat\tkat uno\tCC-BY\ntwo\tdu\tCC-BY\n')
    assert sides(read(tmp_path, header=False, source="2", target="1")) == [("kat uno", 'one "cat'), ("du", "two")]


def test_json_lines_have_a_key_for_each_language(tmp_path):
    rows = [{"en": source, "xx": target} for source, target in TEXTS]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert sides(read(tmp_path)) == TEXTS


@pytest.mark.parametrize("word", ["NA", "null", "nan", "0"])
def test_no_word_is_a_missing_text(tmp_path, word):
    pair = (word, f"{word} {word}")
    tiny.write_parallel(tmp_path, "train", [pair])
    (tmp_path / "test.csv").write_text(f"en,xx\n{word},{word} {word}\n")
    assert sides(read(tmp_path)) == [pair]
    for suffix in ("en", "xx"):
        (tmp_path / f"train.{suffix}").unlink()
    (tmp_path / "test.csv").rename(tmp_path / "train.csv")
    assert sides(read(tmp_path)) == [pair]


def test_parallel_files_whose_lines_end_with_carriage_returns_alone_are_said_to(tmp_path):
    for suffix in ("en", "xx"):
        (tmp_path / f"train.{suffix}").write_bytes(b"one\rtwo\r")
    with pytest.raises(
        PedigreeError, match=r"train\.en:1: its lines end with carriage returns alone: save it with"
    ):
        read(tmp_path)


def test_only_a_line_feed_ends_a_line_and_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "train.en").write_bytes(codecs.BOM_UTF8 + "one\u2028cat\r\ntwo\x0cdogs\x85\n".encode())
    (tmp_path / "train.xx").write_bytes("kat\u2028uno\r\nhund du\n".encode())
    assert sides(read(tmp_path)) == [("one\u2028cat", "kat\u2028uno"), ("two\x0cdogs", "hund du")]


def test_pairs_with_an_empty_side_or_lost_characters_or_too_many_are_rejected_with_their_line(tmp_path):
    lines = [*TEXTS, (" ", "kat"), ("cat", ""), ("caf\ufffd", "kat"), ("cat " * 20, "kat")]
    tiny.write_parallel(tmp_path, "train", lines)
    found = read(tmp_path)
    assert sides(found) == TEXTS
    assert [(each.file, each.reason) for each in found.rejected] == [
        ("train.en:4", "the text is empty, in en"),
        ("train.en:5", "the text is empty, in xx"),
        ("train.en:6", "U+FFFD stands for characters that were lost when the text was converted, in en"),
        ("train.en:7", "over 60 characters (prepare.longest), in en"),
    ]
    assert found.total == 7


def test_pairs_of_the_same_text_are_left_out_and_counted(tmp_path):
    tiny.write_parallel(tmp_path, "train", [*TEXTS, ("Python", "Python ")])
    found = read(tmp_path)
    assert (sides(found), found.identical, found.rejected) == (TEXTS, 1, [])


def test_a_line_of_fifty_megabytes_is_one_rejected_pair(tmp_path):
    tiny.write_parallel(tmp_path, "train", TEXTS)
    for suffix, text in (("en", b"x" * 50_000_000), ("xx", b"kat")):
        with (tmp_path / f"train.{suffix}").open("ab") as file:
            file.write(text + b"\n")
    found = read(tmp_path)
    assert sides(found) == TEXTS
    assert [(each.file, each.reason) for each in found.rejected] == [
        ("train.en:4", "over 1,048,576 bytes in a line")
    ]


def test_unequal_numbers_of_lines_are_an_error_that_names_where_lengths_stop_agreeing(tmp_path):
    texts = [(f"{'very ' * (number * 7 % 11)}long", f"{'tre ' * (number * 7 % 11)}granda") for number in range(60)]
    tiny.write_parallel(tmp_path, "train", texts)
    lines = (tmp_path / "train.xx").read_bytes().splitlines(keepends=True)
    (tmp_path / "train.xx").write_bytes(b"".join(lines[:41] + lines[42:]))
    expected = (
        rf"^{tmp_path}/train\.en has 60 lines and {tmp_path}/train\.xx 59: from line 42 on the lengths of their "
        r"texts no longer agree, as if train\.xx lacked a line there: correct that place$"
    )
    with pytest.raises(PedigreeError, match=expected):
        read(tmp_path)


@pytest.mark.parametrize(("line", "missing"), [(1, 1), (2, 1), (30, 1), (47, 3), (58, 2)])
def test_the_first_line_out_of_line_is_found_wherever_lines_are_missing(line, missing):
    source = [20 + number * 37 % 83 for number in range(60)]
    target = [round(1.2 * length) + number % 3 for number, length in enumerate(source)]
    shorter = target[: line - 1] + target[line - 1 + missing :]
    assert drift.first_line(source, shorter) == line
    assert drift.first_line(shorter, source) == line


def test_a_file_that_ends_too_soon_is_out_of_line_from_there_on():
    source = [20 + number * 37 % 83 for number in range(60)]
    assert drift.first_line(source, source[:40]) == 41
    assert drift.first_line(source, []) == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, r"has no pairs of texts for training: put parallel files there, such as train\.en and train\.xx, or"),
        ({"test.en": "a", "test.xx": "b"}, r"has no pairs of texts for training, only for test: put"),
        ({"train.en": "a"}, r"/train\.en has no translation beside it: add train\.xx, or name the languages in"),
        ({"train.EN": "a"}, r"has no pairs of texts for training: put"),
        ({"a.en": "a", "a.xx": "b", "b.en": "c", "b.xx": "d"}, r"has several parallel files, a, b: name them as"),
        (
            {"train.1.en": "a", "train.1.xx": "b", "train.2.en": "c", "train.2.xx": "d"},
            r"has files train\.1 and train\.2 for the split train: remove one of them$",
        ),
        ({"train.en": "a", "train.en.gz": "b", "train.xx": "c"}, r"train\.en\.gz are the same file: remove one"),
        (
            {"train.tsv": "en\tfr\na\tb\n"},
            r"train\.tsv has the columns 'en', 'fr', and none is called 'xx': set",
        ),
        ({"train.en": "\0a\0b", "train.xx": "b"}, r"train\.en: it is in UTF-16 or UTF-32: save it as UTF-8$"),
        ({"train.en": "a\n\0", "train.xx": "b\nc"}, r"train\.en:2: byte 1 is NUL: save the file as UTF-8 text$"),
        ({"train.en": "", "train.xx": ""}, r"train\.en: it is empty: put text there, or remove the file$"),
        ({"train.en.gz": "a\n", "train.xx": "b\n"}, r"train\.en\.gz cannot be unpacked \(.*\): get another copy$"),
    ],
)
def test_files_that_cannot_be_read_are_an_error_of_one_sentence(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(PedigreeError, match=expected) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_utf_16_with_a_byte_order_mark_is_named(tmp_path):
    for suffix in ("en", "xx"):
        (tmp_path / f"train.{suffix}").write_bytes("one cat\n".encode("utf-16"))
    with pytest.raises(PedigreeError, match=r"train\.en: it is in UTF-16 or UTF-32: save it as UTF-8$"):
        read(tmp_path)


def test_without_a_header_the_error_says_that_columns_have_numbers(tmp_path):
    (tmp_path / "train.tsv").write_text("en\txx\n")
    expected = r"has the columns '1', '2', as prepare\.header is false, and none is called 'en': set"
    with pytest.raises(PedigreeError, match=expected):
        read(tmp_path, header=False)


def test_a_stray_quotation_mark_that_joins_pairs_of_a_csv_is_found(tmp_path):
    (tmp_path / "train.csv").write_text('en,xx\none,"uno\ntwo,du"\nthree,tri\n')
    found = read(tmp_path)
    assert sides(found) == [("three", "tri")]
    assert [(each.file, each.reason) for each in found.rejected] == [("train.csv:2", tables.JOINED)]


def test_rows_of_another_shape_or_type_are_rejected(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"en": "a", "xx": "b"}\n{"en": "c"}\n[1]\n{"en": ["d"], "xx": "e"}\n')
    found = read(tmp_path)
    assert sides(found) == [("a", "b")]
    assert [each.file for each in found.rejected] == ["train.jsonl:2", "train.jsonl:3", "train.jsonl:4"]
