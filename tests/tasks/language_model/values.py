"""Parameters of language for tests: those of params.yaml with others laid over them."""

from pathlib import Path
from typing import Any

from components import params
from components.contracts import Prepared
from components.tasks.language_model.params import LanguageParams
from components.tasks.language_model.prepare import prepare

ROOT = Path(__file__).parents[3]


def values(**sections: Any) -> LanguageParams:
    """Return validated parameters; `train={"window": 8}` changes one of them."""
    tree = params.Values({"models": {"docstrings": sections}}, {}).over(params.read(ROOT / "tests" / params.FILE))
    return params.validate(LanguageParams, tree, ("models", "docstrings"))


def tokenizer(name: str, vocabulary: int = 300, min_count: int = 1, **shares: float) -> dict[str, Any]:
    """Return a section `prepare`."""
    return {"tokenizer": {"name": name, "vocabulary": vocabulary, "min_count": min_count}, **shares}


def prepared(folder: Path, text: str | dict[str, str], **sections: Any) -> Prepared:
    """Prepare a text, or several by file name, below a new folder."""
    raw, out = folder / "raw", folder / "prepared"
    raw.mkdir(parents=True)
    out.mkdir()
    for name, content in ({"text.txt": text} if isinstance(text, str) else text).items():
        (raw / name).write_bytes(content.encode())
    return Prepared(out, prepare(raw, out, values(**sections)))
