"""The profiles in profiles/ and the pages that name them."""

import re

import pytest

from components import models
from tests.conftest import ROOT

README = ROOT / "README.md"
PAGES = {file: file.read_text() for file in (README, *(ROOT / "docs").rglob("*.md"))}
NAMES = sorted(file.stem for file in (ROOT / "profiles").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_named_on_the_page_of_its_task_or_in_the_readme_where_it_has_none(name):
    page = ROOT / "docs" / "tasks" / f"{models.profile(ROOT, name).task}.md"
    assert re.search(rf"(`|--profile ){re.escape(name)}(?![\w-])", PAGES[page if page in PAGES else README])


def test_every_profile_that_a_page_names_in_a_command_exists():
    named = {each for text in PAGES.values() for each in re.findall(r"--profile ([a-z][\w-]*)", text)}
    assert named - {*NAMES} == set()
