"""The README's program runs, and no page links to something that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "prompts" / "README.md", *sorted(ROOT.glob("docs/*.md"))]


def test_the_readmes_program_ends_in_an_eleven_by_eleven_matrix_of_cosines(capsys):
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    assert program.count("[:64]") == 1
    names: dict = {}
    exec(program.replace("[:64]", "[:8]"), names)
    cosines = names["cosine_matrix"](names["directions"])
    assert cosines.shape == (11, 11)
    assert cosines.diagonal().allclose(cosines.new_ones(11))
    assert str(cosines) in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_link_only_to_what_is_there(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'src="([^"]+)"', text)
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_link_only_to_headings_that_are_there(page):
    for name, heading in re.findall(r"\]\(([^)#\s]*\.md)?#([^)\s]+)\)", page.read_text()):
        text = re.sub(r"^```.*?^```$", "", (page.parent / name if name else page).read_text(), flags=re.M | re.S)
        titles = re.findall(r"^#+ (.+)$", text, re.M)
        assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, (name, heading)
