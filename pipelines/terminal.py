"""Tables and lines for a terminal, in which control characters of names and data are escaped."""

from typing import Any

from rich.console import Console  # noqa: TID251 - escapes below
from rich.text import Text

from components.display import printable


def console(**options: Any) -> Console:
    """Return a console with rich's options that prints texts literally: brackets and colons are no markup."""
    return _Console(highlight=False, markup=False, emoji=False, **options)


class _Console(Console):
    """A console that escapes control characters before it measures a text."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)
