"""Text files as they are read, block by block."""

import os

import pytest

from components.errors import PedigreeError
from components.text.corpus import Piece, splits, strays
from tests.tasks.language_model.values import values


def test_a_part_is_read_from_its_first_to_its_last_character(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("one\ntwo\nthree\n")
    assert "".join(Piece(file, 4, 11).blocks()) == "two\nthr"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("start", "stop"), [(0, 100), (50, 100)])
def test_a_file_that_became_shorter_since_it_was_counted_is_reported(tmp_path, start, stop):
    file = tmp_path / "text.txt"
    file.write_text("x" * 40)
    with pytest.raises(PedigreeError, match=r"text\.txt became shorter while it was read: run prepare again"):
        list(Piece(file, start, stop).blocks())


def test_what_a_system_writes_beside_the_texts_is_neither_a_text_nor_rejected(tmp_path):
    for name in ("text.txt", "Thumbs.db", ".hidden", "notes.md"):
        (tmp_path / name).write_text("some text " * 40)
    texts = splits(tmp_path, values().prepare)
    assert strays(tmp_path, texts) == ["notes.md"]


DOCUMENTS = {f"{name}.txt": "".join(f"{name}{line:03} of this text\n" for line in range(60)) for name in "abcde"}


def options(**changes):
    return values(prepare={"val_share": 0.1, "test_share": 0.1, **changes}).prepare


def write(folder, documents):
    for name, content in documents.items():
        (folder / name).write_text(content)
    return "".join(documents.values())


def joined(text):
    return "".join(text.blocks())


def test_files_without_train_txt_are_one_text_in_the_order_of_their_names(tmp_path):
    whole = write(tmp_path, dict(reversed(DOCUMENTS.items())))
    parts = splits(tmp_path, options())
    whole = "".join(DOCUMENTS.values())
    assert "".join(joined(parts[split]) for split in ("train", "val", "test")) == whole
    assert joined(parts["test"]).startswith("e030 of"), "a tenth, cut at a line's end"
    assert strays(tmp_path, parts) == []
    assert parts["test"].ranges == "characters 541 to 1,080 of e.txt"


@pytest.mark.parametrize("number", range(1, 9))
def test_a_text_that_is_split_anew_has_test_and_val_in_one_block_between_ends_of_lines(tmp_path, number):
    whole = write(tmp_path, DOCUMENTS)
    parts = splits(tmp_path, options(resplit=number))
    held = joined(parts["val"]) + joined(parts["test"])
    before, found, after = whole.partition(held)
    assert found
    assert joined(parts["train"]) == before + after
    assert held.endswith("\n")
    assert before == "" or before.endswith("\n")
    assert joined(parts["val"]).endswith("\n")
    assert [parts[split].characters / len(whole) for split in ("val", "test")] == pytest.approx(
        [0.1, 0.1], abs=0.02
    )


def test_each_number_draws_another_block(tmp_path):
    write(tmp_path, DOCUMENTS)
    assert len({joined(splits(tmp_path, options(resplit=number))["test"]) for number in range(9)}) == 9


def test_a_text_that_is_split_anew_pools_its_own_splits_and_leaves_other_files(tmp_path):
    names = ("train.txt", "valid.txt", "test.txt", "readme.txt")
    whole = write(tmp_path, dict(zip(names, DOCUMENTS.values(), strict=False)))
    own = splits(tmp_path, options())
    assert [joined(own[split]) for split in ("train", "val", "test")] == list(DOCUMENTS.values())[:3]
    anew = splits(tmp_path, options(resplit=3))
    assert sorted("".join(map(joined, anew.values())).splitlines()) == sorted(whole.splitlines()[:180])
    assert strays(tmp_path, own) == strays(tmp_path, anew) == ["readme.txt"]


def test_a_text_without_line_ends_is_cut_where_it_is(tmp_path):
    whole = write(tmp_path, {"a.txt": "words and words " * 100})
    parts = splits(tmp_path, options(resplit=1))
    assert parts["test"].characters == parts["val"].characters == 160
    assert len(whole) == sum(part.characters for part in parts.values())


def test_where_test_is_val_a_text_that_is_split_anew_has_another_block_of_it(tmp_path):
    write(tmp_path, DOCUMENTS)
    first, second = (splits(tmp_path, options(test_share=0, resplit=number)) for number in (0, 1))
    assert first["test"] == first["val"]
    assert second["test"] == second["val"] != first["val"]


TEXT = "some text, and some more of it\n" * 40


@pytest.mark.parametrize("name", ["val.txt", "validation.txt", "dev.txt", "Valid.TXT"])
def test_the_text_of_validation_is_taken_under_each_of_its_usual_names_in_any_case(tmp_path, name):
    for each in ("Train.txt", name, "TEST.TXT"):
        (tmp_path / each).write_text(f"{each} {TEXT}")
    texts = splits(tmp_path, values().prepare)
    assert {split: text.pieces[0].file.name for split, text in texts.items()} == {
        "train": "Train.txt",
        "val": name,
        "test": "TEST.TXT",
    }
    assert "".join(texts["val"].blocks()) == f"{name} {TEXT}"
    assert strays(tmp_path, texts) == []


def test_two_texts_of_one_split_are_an_error_that_names_both(tmp_path):
    for each in ("train.txt", "val.txt", "valid.txt"):
        (tmp_path / each).write_text(f"{each} {TEXT}")
    with pytest.raises(PedigreeError, match=r"/val\.txt and .*/valid\.txt are each the text of val: put them into"):
        splits(tmp_path, values().prepare)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8-sig")
    assert "".join(part for text in splits(tmp_path, values().prepare).values() for part in text.blocks()) == TEXT


@pytest.mark.parametrize(
    ("pointer", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer.*git lfs pull"),
        ("/annex/objects/SHA256E-s9--00.txt\n", "a git-annex pointer.*git annex get"),
    ],
)
def test_a_text_that_only_stands_for_a_file_is_an_error_with_the_remedy(tmp_path, pointer, said):
    (tmp_path / "train.txt").write_text(TEXT)
    (tmp_path / "test.txt").write_text(pointer)
    with pytest.raises(PedigreeError, match=rf"test\.txt is {said}"):
        splits(tmp_path, values().prepare)


def test_pipes_and_folders_beside_the_texts_are_listed_and_what_cannot_be_pinned_is_not_read(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    os.mkfifo(tmp_path / "pipe.txt")
    for name in (os.fsdecode(b"a\xe9.txt"), "a\nb.txt"):
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "gone.txt").symlink_to("nowhere")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "more").mkdir()
    texts = splits(tmp_path, values().prepare)
    assert {text.names for text in texts.values()} == {str(tmp_path / "text.txt")}
    assert strays(tmp_path, texts) == ["more", "pipe.txt"]


@pytest.mark.parametrize("name", ["train.txt", "Valid.txt", "test.txt"])
def test_a_text_of_a_split_that_is_a_link_to_nothing_is_an_error_and_does_not_count_as_absent(tmp_path, name):
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(PedigreeError, match=f"{name} is a link to nothing: bring back the file that it links to"):
        splits(tmp_path, values().prepare)
