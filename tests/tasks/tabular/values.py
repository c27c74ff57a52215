"""Parameters of the tests' model, and what is prepared with them."""

from pathlib import Path
from typing import Any

from components.contracts import Prepared
from components.params import Values, read, validate
from components.tasks.tabular.params import TabularParams
from components.tasks.tabular.prepare import prepare
from tests.conftest import PARAMS
from tests.tasks.tabular.tiny import SETTINGS, write_csv

ROOT = ("models", "disease")


def values(**sections: dict[str, Any]) -> TabularParams:
    """Return the tests' parameters with `SETTINGS` and further changes laid over them."""
    over = Values(sections, {}).over(Values(SETTINGS, {}))
    return validate(TabularParams, over.below(ROOT).over(read(PARAMS)), ROOT)


def prepared(raw: Path, out: Path, **options: Any) -> Prepared:
    """Prepare a raw folder into a new one; `options` are those of the section prepare."""
    out.mkdir()
    return Prepared(out, prepare(raw, out, values(prepare=options)))


def of_rows(folder: Path, header: list[str], rows: list[list[str]], **options: Any) -> Prepared:
    """Prepare a table of these rows, without slices, whose last column is the target."""
    (folder / "raw").mkdir()
    write_csv(folder / "raw" / "table.csv", rows, header)
    chosen = {"slices": [], "target": header[-1], "positive": "", **options}
    return prepared(folder / "raw", folder / "prepared", **chosen)
