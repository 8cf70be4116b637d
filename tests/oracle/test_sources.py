"""Every oracle file names the authors' repository, the commit, and the files that ran."""

from __future__ import annotations

import re

import pytest
from oracle_files import FILES, read_oracle


@pytest.mark.parametrize("name", sorted(path.stem for path in FILES.iterdir()))
def test_oracle_file_names_its_source(name: str) -> None:
    source = read_oracle(name).source
    assert re.fullmatch(r"[\w-]+/[\w-]+", source["repository"])
    assert re.fullmatch(r"[0-9a-f]{40}", source["commit"])
    assert source["files"]
    for path, digest in source["files"].items():
        assert path.endswith(".py") and re.fullmatch(r"[0-9a-f]{64}", digest)
