"""Groups that file names tell, and whole groups drawn from classes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.datasets import groups
from components.errors import PedigreeError

PATTERN = r"^(?P<patient>.+?)[_-]\d+$"


def files(name: str, sizes: list[int], of: str = "p{}") -> dict[str, str]:
    """Return files of a class with their groups, so many of each."""
    return {
        f"{name}/{of.format(number)}_{index}.png": of.format(number)
        for number, size in enumerate(sizes)
        for index in range(size)
    }


def test_a_split_that_is_there_without_a_usable_sample_is_no_reason_to_draw_another(tmp_path):
    assert groups.given(tmp_path, {"train": ["a"], "val": ["b"]}, "texts") == {"train": ["a"], "val": ["b"]}
    for split in ("val", "test"):
        with pytest.raises(PedigreeError, match=f"has {split} data with no texts that can be used: correct them"):
            groups.given(tmp_path, {"train": ["a"], split: []}, "texts")


def test_a_file_whose_name_tells_no_group_has_none():
    names = ["cat/p1_2.png", "cat/p1.png", "cat/cat_7.png", "cat/cat_p3_7.png", "train/cat/p2-1.png"]
    assert groups.found(names, PATTERN, "patient") == {
        "cat/p1_2.png": "p1",
        "cat/cat_p3_7.png": "p3",
        "train/cat/p2-1.png": "p2",
    }
    assert groups.found(names, "", "patient") == {}


@given(
    sizes=st.lists(st.lists(st.integers(0, 6), min_size=8, max_size=20), min_size=2, max_size=3),
    share=st.sampled_from([0.1, 0.2, 0.5]),
    number=st.integers(0, 5),
)
def test_no_group_is_on_both_sides_and_each_class_gets_about_its_share(sizes, share, number):
    drawn_from = [files(f"class{index}", each) for index, each in enumerate(sizes)]
    classes = {f"class{index}": list(each) for index, each in enumerate(drawn_from)}
    if min(map(len, classes.values())) < 2:
        return
    group = {file: name for each in drawn_from for file, name in each.items()}
    drawn = groups.draw(classes, group, share, 1, 0, number)
    if drawn is None:
        return
    assert not {group[file] for file in drawn} & {group[file] for file in group if file not in drawn}
    for each in classes.values():
        wanted = max(1, min(round(share * len(each)), len(each) - 1))
        assert wanted / 2 <= len(drawn & set(each)) <= min(2 * wanted, len(each) - 1)


def test_many_groups_of_a_few_files_can_be_divided_and_each_number_draws_others():
    group = files("cat", [3] * 20) | files("dog", [2] * 20)
    classes = {name: [file for file in group if file.startswith(name)] for name in ("cat", "dog")}
    draws = [groups.draw(classes, group, 0.2, 1, 0, number) for number in range(6)]
    assert None not in draws
    assert len(set(draws)) == 6
    assert all(len([file for file in drawn if file.startswith("cat")]) == 12 for drawn in draws)


def test_a_draw_takes_the_groups_that_it_always_took():
    group = files("cat", [3, 1, 4, 1, 5, 2]) | files("dog", [2, 4, 1, 8, 2, 5, 3])
    classes = {name: [file for file in group if file.startswith(name)] for name in ("cat", "dog")}
    draws = [groups.draw(classes, group, 0.3, 1, 0, number) for number in range(5)]
    taken = [" ".join(sorted({group[file] for file in drawn})) for drawn in draws]
    assert taken == ["p3 p5 p6", "p0 p1", "p0 p1", "p4 p6", "p1 p2 p6"]


def test_three_equal_groups_are_enough_for_a_fifth():
    group = files("cat", [10, 10, 10])
    drawn = groups.draw({"cat": list(group)}, group, 0.2, 1, 0, 0)
    assert len(drawn) == 10
    assert len({group[file] for file in drawn}) == 1


@pytest.mark.parametrize(
    "sizes",
    [[400, 3, 2], [50, 50], [300, *[1] * 100], [20]],
    ids=["a camera and strays", "two cameras", "a camera and single files", "one name"],
)
def test_names_that_begin_with_few_words_tell_no_groups_to_draw(sizes):
    group = files("cat", sizes)
    assert groups.draw({"cat": list(group)}, group, 0.2, 1, 0, 0) is None


def test_files_drawn_one_by_one_are_a_share_of_each_class_and_leave_what_is_to_be_kept():
    classes = {"cat": [f"cat/{n}" for n in range(40)], "dog": [f"dog/{n}" for n in range(3)]}
    drawn = groups.draw_each(classes, 0.9, 2, 0, 0)
    assert [len(drawn & set(each)) for each in classes.values()] == [36, 1]
