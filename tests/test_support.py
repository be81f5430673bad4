"""The documented table of architectures is what small random models of each give."""

import pytest

from . import support


@pytest.mark.slow
def test_the_table_of_architectures_is_what_they_give(tmp_path):
    found = support.table(tmp_path)
    assert found == support.written()
    assert "wrong" not in found
