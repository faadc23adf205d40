"""Links between documents resolve, docs/api.md is complete, citation and changelog name this version."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

import mim_jax

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")


def prose(path):
    """Text of a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path):
    """The anchors that GitHub gives to headings: lower case, no punctuation, hyphens for spaces."""
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


def code_of_documents():
    """Yield the Python code of documents and examples."""
    for path in DOCUMENTS:
        yield from re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            yield "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        elif path.suffix == ".py":
            yield path.read_text(encoding="utf-8")


def test_the_api_lists_what_documents_and_examples_use_by_its_first_line():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = {}
    for name, path, top, words in re.findall(
        r"^\| \[`(\w+)`\]\(\.\./([\w/]+)\.py\)( †)? \| (.*) \|$", page, flags=re.M
    ):
        found = getattr(importlib.import_module(path.removesuffix("/__init__").replace("/", ".")), name)
        assert words == inspect.getdoc(found).splitlines()[0], f"docs/api.md on {name}"
        assert bool(top) == (name in mim_jax.__all__), f"docs/api.md on {name}"
        listed[name] = found
    code = "\n".join(code_of_documents())
    for imported in re.findall(r"^from mim_jax[\w.]* import ([\w, ]+)$", code, flags=re.M):
        lacking = set(imported.split(", ")) - listed.keys()
        assert not lacking, f"docs/api.md lacks {lacking}"
    assert set(mim_jax.__all__) <= listed.keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_list_stands_after_an_empty_line(document):
    """Otherwise GitHub shows a list, but the site shows a paragraph with hyphens in it."""
    assert re.search(r"^(?![-\d|#>]|\s|$).+\n- ", prose(document), flags=re.M) is None


def test_figures_of_the_audit_stand_in_the_results():
    of_the_paper = {"0.8526", "0.1931", "0.2482", "0.0001"}  # the last is a difference of two figures
    audit, results = (
        (ROOT / "docs" / name).read_text("utf-8") for name in ("differences_from_paper.md", "results.md")
    )
    assert set(re.findall(r"\b0\.\d{4}\b", audit)) - of_the_paper <= set(re.findall(r"\b0\.\d{4}\b", results))


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {mim_jax.__version__}\n" in citation
    assert f"\n## {mim_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
