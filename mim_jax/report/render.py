"""Render templates; every value from outside is escaped unless it is `Markup`."""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mim_jax.data.dataset import printable
from mim_jax.decide.decision import SCORE_NAMES
from mim_jax.evaluate.method_names import METHOD_CLAUSES, method_name
from mim_jax.report import format as formats
from mim_jax.report.sections import leading


def render(template: str, **values: Any) -> str:
    """Render a template, `NAME.html.j2` or `NAME.md.j2`; a missing value is an error."""
    return environment(template.endswith(".md.j2")).get_template(template).render(outline=Outline(), **values)


class Outline:
    """Collect the headings of a page for its table of contents, and number its figures and tables."""

    def __init__(self) -> None:
        self.headings: dict[str, str] = {}  # anchor -> title
        self._counts: Counter[str] = Counter()

    def anchor(self, title: str) -> str:
        """Add a heading and return its anchor."""
        anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        self.headings[anchor] = title
        return anchor

    def number(self, label: str) -> str:
        """Number a "Figure" or "Table"; a label like "Table 2" names the paper's table as well."""
        kind, _, paper = label.partition(" ")
        self._counts[kind] += 1
        own = f"{kind} {self._counts[kind]}"
        return f"{own} ({label} of the paper)" if paper else own


def embed(pngs: Mapping[str, bytes]) -> dict[str, Markup]:
    """Encode each picture as a `data:` URI, so that the page fetches nothing."""
    return {
        name: Markup(f"data:image/png;base64,{base64.b64encode(png).decode()}") for name, png in pngs.items()
    }


@cache
def environment(markdown: bool) -> Environment:
    """Set up the Jinja2 environment; `markdown` selects how values are escaped."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=not markdown,
        finalize=_markdown if markdown else _text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    safe: dict[str, Callable[..., str]] = {
        name: getattr(formats, name)
        for name in ("number", "signed", "percent", "thousands", "span", "interval", "widest", "spread")
    }
    safe["metric_name"] = SCORE_NAMES.__getitem__
    if markdown:
        safe |= {"code": _code, "quoted": _quoted}
    made.filters |= {name: _marked(function) for name, function in safe.items()}
    made.filters |= {
        "intervals": formats.intervals,
        "verdict": formats.verdict,
        "leading": leading,
        "method_name": method_name,
    }
    made.globals |= {"METHOD_CLAUSES": METHOD_CLAUSES, "SHORT_NOTICE": formats.SHORT_NOTICE}
    return made


def _marked(function: Callable[..., str]) -> Callable[..., Markup]:
    """Wrap a function whose result never contains markup, so that it is not escaped."""
    return lambda *args: Markup(function(*args))


def _text(value: object) -> object:
    """Make a value printable; Jinja2 then escapes it for HTML."""
    return value if isinstance(value, Markup) else printable(value)


def _markdown(value: object) -> str:
    """Escape a value from outside for markdown."""
    if isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&])", r"\\\1", printable(value))


def _code(value: object) -> str:
    """Format a value from outside for a markdown code span, where nothing can be escaped."""
    return printable(value).replace("`", "'").replace("|", "/")


def _quoted(value: object) -> str:
    """Quote a value as a JSON string, which is also valid YAML."""
    return json.dumps(printable(value), ensure_ascii=False)
