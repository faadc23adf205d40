"""Links between the documents lead somewhere, and all papers name one version."""

import re
from pathlib import Path

import pytest

import mim_jax

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")


def prose(path):
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path):
    """What GitHub makes of the headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for file, anchor in LINK.findall(prose(document)):
        target = document.parent / file if file else document
        assert target.exists(), f"{document.name} links to {file}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {file}#{anchor}"


def test_every_document_of_docs_is_listed():
    listed = (ROOT / "BUILD.md").read_text(encoding="utf-8")
    assert all(f"docs/{path.name}" in listed for path in (ROOT / "docs").iterdir())


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {mim_jax.__version__}\n" in citation
    assert f"\n## {mim_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
