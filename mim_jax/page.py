"""The HTML of a page: frame, style, sections, tables, galleries.

Texts from outside are escaped by `text`, once, where they enter; everything else takes HTML.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mim_jax import wording

SHORT_NOTICE = "procedural images: says nothing about mpox"

# Stands in every title until the page is put together; escaped text never holds it.
NOTICE_MARK = "<!--notice-->"
CSS = """
:root{color-scheme:light dark;--ink:#1c1f23;--soft:#59626d;--page:#fff;--line:#d9dde2;--band:#f4f6f8;
--warn:#a00000;--warnpage:#fff1f0}@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#a3acb6;
--page:#15181b;--line:#3a4047;--band:#1f2327;--warn:#ff9d94;--warnpage:#3a1d1b}}*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,sans-serif;
overflow-wrap:anywhere}main{max-width:68rem;margin:0 auto;padding:1rem 1rem 3rem}h1{font-size:1.7rem;
line-height:1.25;margin:.8rem 0}h2{font-size:1.25rem;margin:2.4rem 0 .6rem;padding-top:.7rem;
border-top:1px solid var(--line)}p,ul{max-width:46rem}.banner{border:2px solid var(--warn);
background:var(--warnpage);padding:.7rem 1rem;border-radius:6px;max-width:none}
.notice,.banner{color:var(--warn);font-weight:600}small{color:var(--soft);font-weight:400}
.box{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;
overflow-wrap:normal}tbody th{min-width:7.5rem;position:sticky;left:0;background:var(--page);
white-space:normal;overflow-wrap:break-word}th,td{padding:.32rem .7rem;border-bottom:1px solid var(--line);
text-align:right;vertical-align:top;white-space:nowrap}thead th{white-space:normal;vertical-align:bottom}
th:first-child,.words td,.words th,.grouped :nth-child(2){text-align:left}
.words tbody>*>*{white-space:normal;min-width:9rem;overflow-wrap:anywhere}td small{display:block;
font-size:.78rem}tr.strong>*{background:var(--band);font-weight:600}tr.aside>*{color:var(--soft);
font-style:italic;font-weight:400}tr.group>*{padding-top:1rem;color:var(--soft)}.grid{display:grid;
grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1.2rem;align-items:start}
figure{margin:.6rem 0;max-width:33rem;min-width:0}figure.table{max-width:none;margin:1.2rem 0}
img{display:block;width:100%;height:auto;background:#fff;padding:8px;border:1px solid var(--line);
border-radius:6px}figcaption{font-size:.88rem;margin:.4rem 0}details{margin:1rem 0}summary{cursor:pointer;
font-weight:600}pre{background:var(--band);padding:.8rem;overflow-x:auto;font-size:.8rem;line-height:1.4;
overflow-wrap:normal}footer{margin-top:2.4rem;border-top:1px solid var(--line)}
li small{display:block}
@media(max-width:30rem){main{padding:.8rem .8rem 2rem}ul{padding-left:1.2rem}th,td{padding:.3rem}
table{font-size:.76rem}tbody th{min-width:5rem}td small{font-size:.65rem}}@media print{body{font-size:10pt}
main{max-width:none;padding:0}figure,tr{break-inside:avoid}.box{overflow:visible}h2{break-after:avoid}
details::details-content{content-visibility:visible;height:auto}}
"""


def frame(title: str, notice: str | None, sections: Sequence[str]) -> str:
    """The whole document; a notice stands on top and in every title. `title` and `notice` are plain text."""
    title = text(title)
    mark = f' <span class="notice">({SHORT_NOTICE})</span>' if notice else ""
    banner = f'<p class="banner">{text(notice)}</p>' if notice else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none';img-src data:;style-src 'unsafe-inline'\">"
        f"<title>{title}{f' ({SHORT_NOTICE})' if notice else ''}</title><style>{CSS}</style></head>\n"
        f"<body><main>{banner}<h1>{title}</h1>\n"
        + "\n".join(sections).replace(NOTICE_MARK, mark)
        + "\n</main></body></html>\n"
    )


def section(heading: str, words: str, *parts: str) -> str:
    """A heading, a paragraph, and what follows; all HTML."""
    return f"<h2>{heading}</h2><p>{words}</p>{''.join(parts)}"


def table(title: str, header: Sequence[str], rows: Sequence[str], style: str = "") -> str:
    """A table that scrolls inside its own box, or nothing where there are no rows; all texts are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    table = (
        f'<figure class="table"><figcaption>{heading(title)}</figcaption><div class="box" tabindex="0">'
        f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div></figure>\n"
    )
    return table if rows else ""


def row(name: str, cells: Iterable[str], style: str = "") -> str:
    """A row of a table, its name and cells HTML."""
    data = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr class="{style}"><th scope="row">{name}</th>{data}</tr>\n'


def subheading(name: str, width: int) -> str:
    """A row that heads those below it, across a table of `width` columns."""
    return f'<tr class="group"><th scope="colgroup" colspan="{width}">{name}</th></tr>\n'


def cell(value: str, estimate: Mapping[str, Any]) -> str:
    """A value with its intervals below: by images, and by images and folds where there is one."""
    intervals = [wording.interval(estimate)]
    if estimate.get("low_folds") is not None:
        intervals.append(wording.interval(estimate, "_folds"))
    return value + "".join(f"<small>{words}</small>" for words in intervals)


def details(summary: str, *parts: str) -> str:
    """What is folded away, or nothing where all parts are empty."""
    inside = "".join(parts)
    return f"<details><summary>{summary}</summary>{inside}</details>" if inside else ""


def bullets(items: Iterable[str]) -> str:
    inside = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{inside}</ul>" if inside else ""


def gallery(pngs: Mapping[str, bytes], captions: Mapping[str, str]) -> str:
    """Those of the figures that were drawn; captions are HTML."""
    drawn = "".join(
        f'<figure><img alt="{caption}" src="data:image/png;base64,{base64.b64encode(pngs[name]).decode()}">'
        f"<figcaption>{heading(caption)}</figcaption></figure>\n"
        for name, caption in captions.items()
        if name in pngs
    )
    return f'<div class="grid">{drawn}</div>'


def heading(title: str) -> str:
    """A title with its label in bold and the place of the notice behind it."""
    label, rest = title.split(".", maxsplit=1)
    return f"<b>{label}.</b>{rest}{NOTICE_MARK}"


def text(value: object) -> str:
    """HTML of a value that comes from outside."""
    return html.escape(wording.printable(value))
