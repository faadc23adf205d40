"""Hooks of mkdocs: the documents outside docs/ join the site, and links between all of them hold there too.

In the repository a document links by path, as in `](../configs/mim.py)`. In the site README.md is the front
page, the other documents of the root lie beside those of docs/, and a file that is linked is a page with its
text. `docs/api.md` lists names; below each list the site shows their docstrings.
"""

import posixpath
import re
from pathlib import Path

from griffe import Extension
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r'(\]\(|src=")(?!https?://|#)([^)#"\s]+)')
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
    """Where a file of the repository, by its path there, is in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if "/" not in path and path.endswith(".md"):
        return "index.md" if path == "README.md" else path
    return f"source/{path}" if path.endswith(".ipynb") else f"source/{path}.md"


def source_page(path):
    """A page that shows a file; a notebook is there to be fetched."""
    text = (ROOT / path).read_text("utf-8")
    return text if path.endswith(".ipynb") else f"# {path}\n\n```{Path(path).suffix[1:]}\n{text}\n```\n"


def on_page_markdown(markdown, page, **_):
    """Turn links of the repository into those of the site."""
    own = page.file.src_uri
    if own.startswith("source/"):
        return markdown
    home = "" if (ROOT / own).is_file() or own == "index.md" else "docs"

    def turned(found):
        return found[1] + site_path(posixpath.normpath(posixpath.join(home, found[2])))

    if own == "api.md":
        markdown = with_docstrings(markdown)
    # Two intervals in a row are no reference to a docstring.
    return re.sub(r"(?<=\d\] )(?=\[[-+\d])", r"\\", LINK.sub(turned, markdown))


def on_page_content(html, page, **_):
    """Let the keyboard scroll what is wider than a phone."""
    html = html.replace("<pre><span></span><code", '<pre tabindex="0"><span></span><code')
    table = r'<div class="table" tabindex="0"><table>\1</table></div>'
    return re.sub(r"<table>(.*?)</table>", table, html, flags=re.S)


def with_docstrings(markdown):
    """The list of names, and below each table the docstring of every name in it."""
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
    """The examples in docstrings, which follow the text, are code and no quotation."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            example = re.compile(r"^>>> .*(?:\n.+)*", re.M)
            obj.docstring.value = example.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
