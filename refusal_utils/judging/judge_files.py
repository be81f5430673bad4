"""Which judges there are, read from the files of this folder, so that a name can be checked without loading PyTorch."""

import re
from pathlib import Path

_NAME = re.compile(r"^NAME = [\"']([^\"'\n]+)[\"']", re.MULTILINE)


def known_judges() -> dict[str, str]:
    """The modules of this package that define a judge, by the judge's name.

    >>> known_judges()["phrases"]
    'phrase_judge'
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    named = {file.stem: _NAME.search(file.read_text(encoding="utf-8")) for file in files}
    return {found[1]: module for module, found in named.items() if found}
