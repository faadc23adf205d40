"""mkdocs hooks: add the documents outside docs/ to the site, and keep the links between all documents valid.

In the repository a document links by path, as in `](../configs/mim.py)`. On the site README.md is the front
page, the other documents of the root are next to those of docs/, and a linked file becomes a page with its
text, or with the cells of a notebook. `docs/api.md` lists names; the site adds their docstrings.
"""

import json
import posixpath
import re
from pathlib import Path

from griffe import Extension
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r'(\]\(|src=")(?!https?:|data:|#)([^)#"\s]+)')
ENTRY = re.compile(r"^\| \[`(\w+)`\]\(\.\./([\w/]+?)(?:/__init__)?\.py\)", re.M)


def on_files(files, config):
    """Add the documents of the root, and a page for each file that any document links to."""
    files.append(
        File.generated(config, "source/site.css", content=(ROOT / ".ci" / "site.css").read_text("utf-8"))
    )
    documents = [ROOT / "docs" / file.src_uri for file in files.documentation_pages()]
    documents += list(ROOT.glob("*.md"))
    for path in documents:
        if path.parent == ROOT:
            files.append(File.generated(config, site_path(path.name), content=path.read_text("utf-8")))
        for _, target in LINK.findall(path.read_text("utf-8")):
            linked = posixpath.normpath(f"{path.parent.relative_to(ROOT).as_posix()}/{target}")
            page = site_path(linked)
            if (
                page.startswith("source/")
                and files.get_file_from_path(page) is None
                and (ROOT / linked).is_file()
            ):
                files.append(File.generated(config, page, content=source_page(linked)))
    return files


def site_path(path):
    """Path on the site of a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if "/" not in path and path.endswith(".md"):
        return "index.md" if path == "README.md" else path
    return f"source/{path}.md"


def repository_path(page):
    """Path in the repository of the file that a page of the site shows."""
    if page.startswith("source/"):
        return page.removeprefix("source/").removesuffix(".md")
    return "README.md" if page == "index.md" else page if (ROOT / page).is_file() else f"docs/{page}"


def source_page(path):
    """A page that shows a file: its text, or the cells and outputs of a notebook."""
    text = (ROOT / path).read_text("utf-8")
    if not path.endswith(".ipynb"):
        return f"# {path}\n\n```{Path(path).suffix[1:]}\n{text}\n```\n"
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            words = "".join(output.get("text", data.get("text/plain", "")))
            if "image/png" in data:
                image = "".join(data["image/png"]).replace("\n", "")
                parts.append(f'<img alt="Output of the cell above" src="data:image/png;base64,{image}">')
            elif words.strip():
                parts.append(f"```text\n{words}\n```")
    return "\n\n".join(parts)


def on_page_markdown(markdown, page, **_):
    """Rewrite repository links as site links."""
    own = page.file.src_uri
    path = repository_path(own)
    if own.startswith("source/") and not path.endswith(".ipynb"):
        return markdown

    def turned(found):
        there = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(path), found[2])))
        return found[1] + posixpath.relpath(there, posixpath.dirname(own) or ".")

    if own == "api.md":
        markdown = with_docstrings(markdown)
    # Two intervals in a row are not a reference to a docstring.
    return re.sub(r"(?<=\d\] )(?=\[[-+\d])", r"\\", LINK.sub(turned, markdown))


def on_page_content(html, page, **_):
    """Make code blocks and tables scrollable by keyboard."""
    html = html.replace("<pre><span></span><code", '<pre tabindex="0"><span></span><code')
    table = r'<div class="table" tabindex="0"><table>\1</table></div>'
    return re.sub(r"<table>(.*?)</table>", table, html, flags=re.S)


def with_docstrings(markdown):
    """Add below each table the docstring of every name in it."""
    parts = re.split(r"(?m)^(?=## )", markdown)
    for number, part in enumerate(parts):
        listed = [f"::: {path.replace('/', '.')}.{name}" for name, path in ENTRY.findall(part)]
        parts[number] = "\n\n".join((part.rstrip(), *listed)) + "\n\n"
    return "".join(parts)


def on_post_page(output, **_):
    """Name the theme's search dialog for screen readers."""
    return output.replace(
        'data-md-component="search" role="dialog"',
        'data-md-component="search" role="dialog" aria-label="Search"',
    )


class Examples(Extension):
    """Render the examples that follow the text of docstrings as code, not as quotations."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            example = re.compile(r"^>>> .*(?:\n.+)*", re.M)
            obj.docstring.value = example.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
