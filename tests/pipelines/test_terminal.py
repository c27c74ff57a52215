"""What commands print shows names of data literally, and steers no terminal."""

import io

from rich.box import SIMPLE
from rich.table import Table
from rich.tree import Tree

from components.registry.trace import Ancestor
from pipelines import output, terminal, versions


def printed(renderable: object) -> list[str]:
    """Print on a terminal with colours; return the lines."""
    file = io.StringIO()
    terminal.console(file=file, force_terminal=True, color_system="standard", width=80).print(renderable)
    return file.getvalue().splitlines()


def test_a_table_is_as_wide_as_its_escaped_cells():
    table = Table("\x1b[2Jgroup", "[bold]loss", box=SIMPLE, pad_edge=False, show_edge=False)
    table.add_row("\x1b[31mcat\u202e", ":cat: [red]")
    head, _, row = printed(table)
    assert "\\x1b[2Jgroup" in head
    assert "[bold]loss" in head
    assert row == "\\x1b[31mcat\\u202e   :cat: [red]"


def test_a_line_is_printed_literally():
    assert printed("data/\x1b[2J/[red]:cat:.png") == ["data/\\x1b[2J/[red]:cat:.png"]


def test_a_version_s_ancestry_steers_no_terminal():
    tree = versions._tree(Ancestor("data", "\x1b[2J [red] 1234", "here"))
    assert isinstance(tree, Tree)
    assert tree.label.plain == "data  \\x1b[2J [red] 1234  here"


def test_a_command_s_messages_steer_no_terminal(capsys):
    output.echo("data/\x1b[2J.png was fetched")
    output.echo("error: \x1b]8;;", err=True)
    assert capsys.readouterr() == ("data/\\x1b[2J.png was fetched\n", "error: \\x1b]8;;\n")
