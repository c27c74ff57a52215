"""Layouts of public tables: see benchmarks.layouts."""

import csv
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

GERMAN = (
    "checking",
    "duration",
    "history",
    "purpose",
    "amount",
    "savings",
    "employment",
    "rate",
    "personal",
    "debtors",
    "residence",
    "property",
    "age",
    "plans",
    "housing",
    "credits",
    "job",
    "liable",
    "telephone",
    "foreign",
    "class",
)
"""Names for the attributes of german.names, in their order."""
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
HEART = ("sex", "cp", "fbs", "restecg", "exang", "slope", "thal")
"""Columns of the hearts that hold codes, which files of one hospital write as 1 and others as 1.0."""
MISSING = ("", "?", "-9", "-9.0")
"""What stands for a missing value in the files of the hearts."""


def german_credit(extracted: Path, folder: Path) -> None:
    """Write german.csv with names for the columns."""
    with (extracted / "german-credit" / "german.csv").open(encoding="utf-8", newline="") as file:
        _write(folder / "german.csv", GERMAN, list(csv.reader(file)))


def taiwan_credit(extracted: Path, folder: Path) -> None:
    """Lay out the table."""
    folder.mkdir(parents=True)
    shutil.copyfile(extracted / "taiwan-credit" / "UCI_Credit_Card.csv", folder / "taiwan.csv")


def diabetes_brfss(extracted: Path, folder: Path) -> None:
    """Lay out the table."""
    folder.mkdir(parents=True)
    shutil.copyfile(extracted / "diabetes-brfss" / "5050.csv", folder / "diabetes.csv")


def heart_disease(extracted: Path, folder: Path) -> None:
    """Write one table of the four hospitals."""
    own = [_hearts(extracted, hospital) for hospital in HOSPITALS]
    _write(folder / "hearts.csv", own[0][0], [row for _, rows in own for row in rows])


def heart_shift(extracted: Path, folder: Path) -> None:
    """Write train.csv from Cleveland, and test.csv from the three other hospitals."""
    first, *others = [_hearts(extracted, hospital) for hospital in HOSPITALS]
    _write(folder / "train.csv", *first)
    _write(folder / "test.csv", first[0], [row for _, rows in others for row in rows])


def _hearts(extracted: Path, hospital: str) -> tuple[list[str], list[list[str]]]:
    """Return the names and rows of a hospital, with the target 1 for any of its degrees of illness."""
    path = extracted / "heart-disease" / f"processed.{hospital}.data"
    with path.open(encoding="utf-8-sig", newline="") as file:
        names, *rows = csv.reader(file)
    found = []
    for row in rows:
        cells = dict(zip(names, row, strict=True))
        plain = {name: "" if cell in MISSING else f"{float(cell):g}" for name, cell in cells.items()}
        coded = {name: f"code {cell}" if name in HEART and cell else cell for name, cell in plain.items()}
        coded["target"] = str(int(float(cells["target"]) > 0))
        found.append([*coded.values()])
    return names, found


def fraud_oracle(extracted: Path, folder: Path) -> None:
    """Write train.csv from the claims of 1994 and 1995, and test.csv from those of 1996."""
    with (extracted / "fraud-oracle" / "fraud_oracle.csv").open(encoding="utf-8-sig", newline="") as file:
        names, *rows = csv.reader(file)
    year = names.index("Year")
    for split, years in {"train": ("1994", "1995"), "test": ("1996",)}.items():
        _write(folder / f"{split}.csv", names, [row for row in rows if row[year] in years])


def _write(file: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        table = csv.writer(opened, lineterminator="\n")
        table.writerow(names)
        table.writerows(rows)
