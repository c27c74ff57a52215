"""DVC's program, in this process and without the user's settings."""

from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
from dvc import cli


def dvc(root: Path, *arguments: str) -> None:
    """Run DVC in `root`, in this process, as each new one imports for a second."""
    with chdir(root):
        assert cli.main([*arguments, "-q"]) == 0


@contextmanager
def without_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Hide the user's and the machine's settings and caches of DVC."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield patch
