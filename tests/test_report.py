"""The report page: self-contained, escaped, faithful to its numbers, and the same bytes each time."""

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import auc, roc_auc_score

from mim_jax import figures
from mim_jax.figures import METRIC_NAMES, Panels, panel_figure
from mim_jax.page import SHORT_NOTICE
from mim_jax.report import write_report

METHODS = ("mim", "mean_fill", "harmonic_fill")
HOSTILE = 'x$\\frac$"><script>alert(1)</script>\n \u202e中 &amp;.jpg'


def panels_of(count: int, *, size: int = 16, seed: int = 0) -> Panels:
    """`count` noise images, every third of the training class, of each kind in turn."""
    generator = np.random.default_rng(seed)
    images = generator.random((count, size, size, 3), dtype=np.float32)
    first, mask = size // 4, size // 2
    inpainted = images.copy()
    inpainted[:, first : first + mask, first : first + mask] = generator.random((count, mask, mask, 3))
    index = np.arange(count)
    return Panels(
        images=np.round(images * 255).astype(np.uint8),
        inpainted=inpainted,
        offset=(first, first),
        mask_size=mask,
        names=np.array([f"image_{i}.jpg" for i in index]),
        classes=np.where(index % 3 == 0, "mpox", "acne"),
        scores=generator.random(count),
        folds=index % 2,
        positive=index % 3 == 0,
        kind=np.array(figures.KINDS)[index // 3 % 3],
    )


def a_run(*, folds: int = 3, controls: bool = True, notice: str | None = None) -> dict[str, Any]:
    """The arguments of `write_report` for a small run; every AUROC is another number."""
    generator = np.random.default_rng(0)
    methods = METHODS if controls else METHODS[:1]

    def estimate(**first: float) -> dict[str, Any]:
        low, high = np.sort(generator.random(2)).tolist()
        return {**first, "low": low, "high": high}

    def summary() -> dict[str, Any]:
        each = [estimate(value=float(generator.random())) for _ in range(folds)]
        return {"folds": each, **estimate(mean=float(generator.random()), std=float(generator.random()))}

    def parts(names: tuple[str, ...]) -> dict[str, Any]:
        return {m: {name: {"n": 7, **estimate(mean=0.6, std=0.1)} for name in names} for m in methods}

    results = {
        "title": "MIM on a folder",
        "notice": notice,
        "data": {
            "source": "folder",
            "digest": "0123abcd",
            "positive": "mpox",
            "grouped": True,
            "classes": {"acne": 9, "mpox": 12, "nv": 8},
            "class_groups": {"training": ["mpox"], "dermoscopy": ["nv"]},
            "unusable": [["nv/bad.jpg", "damaged"]],
        },
        "splits": [
            {
                "fold": fold,
                "train": 8,
                "test": 4,
                "augmented": 20,
                "negatives": 17,
                "train_groups": 5,
                "test_groups": 3,
            }
            for fold in range(folds)
        ],
        "auroc": {
            kind: {m: {metric: summary() for metric in METRIC_NAMES} for m in methods}
            for kind in ("augmented", "plain")
        },
        "per_class": parts(("acne", "nv")),
        "per_group": parts(("dermoscopy",)),
        "differences": {
            m: {metric: estimate(mean=float(generator.normal())) for metric in METRIC_NAMES}
            for m in methods[1:]
        },
        "decision": {
            "metric": "ssim_hbd",
            "rule": "At least the threshold.",
            "thresholds": [0.5, None, 0.625][:folds],
            "pooled": 0.5625,
            "table": {"acne": {"n": 27, "mpox_like": 9}, "mpox": {"n": 12, "mpox_like": 11}},
        },
        "paper": {"ssim_hbd": [0.8237, 0.0101], "ssim": [0.7582, 0.0455]},
        "training": {
            "epochs": 2,
            "parameters": {"generator": 40401187, "discriminator": 1555585},
            "parameter_hash": ["aa"] * folds,
        },
        "environment": {"versions": {"jax": "0.10.2"}, "device": "cpu", "platform": "cpu", "cpu_count": 2},
        "seed": 3,
        "wall_time": {"train": [61.0] * folds, "evaluate": 2.5, "total": 4000.0},
        "config": {"data": {"root": ""}},
    }
    scores = [
        {
            "fold": fold,
            "method": method,
            "name": f"{i}.jpg",
            "class": "mpox" if i < 6 else ("acne", "nv")[i % 2],
            "group": str(i),
            "copy": int(3 <= i < 6),
            "augmented": True,
            "plain": not 3 <= i < 6,
            "positive": i < 6,
            "ssim_hbd": float(generator.random()),
        }
        for fold in range(folds)
        for method in methods
        for i in range(20)
    ]
    columns = {column for _, named in figures.TRAINING_CURVES.values() for column in named}
    history: list[dict[str, Any]] = [{"event": "start", "fold": 0}]
    for fold in range(folds):
        for epoch in (1, 2):
            numbers = {column: float(generator.random()) for column in columns}
            history.append({"event": "epoch", "fold": fold, "epoch": epoch, **numbers})
    return {"results": results, "scores": scores, "history": history, "panels": panels_of(18)}


class Page(HTMLParser):
    """The parsed page: every element, the texts, titles and tables; refuses elements that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "figcaption":
            self.titles.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "figcaption" in self._open:
            self.titles[-1] += data
        if self._open and "tr" in self._open:
            self.tables[-1][-1][-1] += data + " " * (self._open[-1] != "small")


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of the words alone: no figure is drawn, which takes most of the time."""
    monkeypatch.setattr(figures, "draw", lambda *_, **__: {})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The path of a page with a notice and all its figures."""
    return write_report(tmp_path_factory.mktemp("run"), **a_run(notice="These are procedural images."))


def page_of(workdir, run: dict[str, Any]) -> Page:
    return Page(write_report(workdir, **run).read_text(encoding="utf-8"))


def test_one_file_with_every_figure_inside_and_nothing_fetched(written):
    assert written.name == "report.html"
    text = written.read_text(encoding="utf-8")
    page = Page(text)
    assert "://" not in text and "url(" not in text and "@import" not in text
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert not any("href" in attributes for _, attributes in page.elements)
    prefix = "data:image/png;base64,"
    assert all(source.startswith(prefix) for source in sources)
    embedded = sorted(base64.b64decode(source[len(prefix) :]) for source in sources)
    assert embedded == sorted(file.read_bytes() for file in (written.parent / "figures").glob("*.png"))
    names = {file.stem for file in (written.parent / "figures").iterdir()}
    assert {"roc_best", "roc_worst", "per_class", "per_group", "histograms", "learning_rate"} <= names
    assert "panels_training_typical_1" in names and "panels_others_worst_1" in names


def test_what_comes_from_data_cannot_become_markup(tmp_path):
    run = a_run(notice=HOSTILE)
    results, data = run["results"], run["results"]["data"]
    results["title"] = data["source"] = data["digest"] = results["decision"]["rule"] = HOSTILE
    data["unusable"] = [[HOSTILE, HOSTILE + "\udcff"]]
    data["positive"], data["classes"] = HOSTILE, {HOSTILE: 3, HOSTILE + "2": 4}
    data["class_groups"] = {HOSTILE: [HOSTILE + "2"]}
    results["decision"]["table"] = {HOSTILE: {"n": 2, "mpox_like": 1}}
    results["config"] = {"</pre>": HOSTILE}
    results["environment"]["versions"] = {HOSTILE: HOSTILE}
    for part in ("per_class", "per_group"):
        results[part] = {method: {HOSTILE: values.popitem()[1]} for method, values in results[part].items()}
    panels = run["panels"]
    panels.names[:] = panels.classes[:] = "placeholder"
    run["panels"] = Panels(
        **{**vars(panels), "names": np.array([HOSTILE] * 18), "classes": np.array([HOSTILE] * 18)}
    )
    page = page_of(tmp_path, run)
    assert "script" not in {tag for tag, _ in page.elements}
    allowed = {"class", "src", "alt", "lang", "charset", "name", "content", "http-equiv", "tabindex", "scope"}
    assert all(set(attributes) <= allowed for _, attributes in page.elements)
    shown = HOSTILE.replace("\n", "\\n").replace("\u202e", "\\u202e")
    assert page.text.count(shown) > 15 and shown + "\\udcff" in page.text


def test_notice_stands_in_every_title(written):
    page = Page(written.read_text(encoding="utf-8"))
    pictures = sum(tag == "img" for tag, _ in page.elements)
    assert len(page.titles) == pictures + len(page.tables) and pictures > 12
    assert all(title.startswith(("Figure", "Table")) for title in page.titles)
    assert all(SHORT_NOTICE in title for title in page.titles)
    assert page.text.index("These are procedural images.") < page.text.index("Trained on")


def test_without_a_notice_nothing_is_said_of_procedural_images(tmp_path, undrawn):
    assert "procedural" not in page_of(tmp_path, a_run()).text


def test_notice_is_drawn_into_every_figure(written):
    run = a_run()
    without = figures.draw(run["results"], run["scores"], run["history"], run["panels"])
    assert len(without) > 12
    for name, png in without.items():
        noted = (written.parent / "figures" / f"{name}.png").read_bytes()
        assert Image.open(io.BytesIO(noted)).height > Image.open(io.BytesIO(png)).height


def test_numbers_of_table_2_are_those_of_the_results(tmp_path, undrawn):
    run = a_run()
    results = run["results"]
    page = page_of(tmp_path, run)

    def numbers(cell: str) -> list[float]:
        return [float(number) for number in re.findall(r"[-+]?\d\.\d{4}", cell.replace("\u2212", "-"))]

    for place, kind in enumerate(("augmented", "plain")):
        rows = {row[0].strip(): [numbers(cell) for cell in row[1:]] for row in page.tables[place][1:]}
        network = results["auroc"][kind]["mim"]
        for column, metric in enumerate(METRIC_NAMES):
            values = network[metric]
            for fold in range(3):
                expected = [values["folds"][fold][key] for key in ("value", "low", "high")]
                np.testing.assert_allclose(rows[f"MIM fold {fold + 1}"][column], expected, atol=5.01e-5)
            mean = rows["MIM mean ± std"][column] + rows["95 % interval of the mean"][column]
            np.testing.assert_allclose(
                mean, [values[key] for key in ("mean", "std", "low", "high")], atol=5.01e-5
            )
            control = results["auroc"][kind]["harmonic_fill"][metric]
            np.testing.assert_allclose(
                rows["harmonic fill, mean ± std"][column],
                [control[key] for key in ("mean", "std", "low", "high")],
                atol=5.01e-5,
            )
            if kind == "augmented":
                difference = results["differences"]["mean_fill"][metric]
                np.testing.assert_allclose(
                    rows["MIM minus mean-colour fill"][column],
                    [difference[key] for key in ("mean", "low", "high")],
                    atol=5.01e-5,
                )
    assert (
        "0.8237 ± 0.0101" in page.tables[0][-1][1] and page.tables[0][-1][0].strip() == "paper (other data)"
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.05, "better than"), (-0.05, -0.01, "worse than"), (-0.01, 0.02, "not distinguishable from")],
)
def test_summary_says_what_the_interval_of_the_difference_allows(tmp_path, undrawn, low, high, words):
    run = a_run()
    results = run["results"]
    results["differences"]["harmonic_fill"]["ssim_hbd"] = {"mean": 0.0123, "low": low, "high": high}
    results["auroc"]["augmented"]["mim"]["ssim_hbd"] |= {"low": 0.5 + low, "high": 0.5 + high}
    text = page_of(tmp_path, run).text
    assert f"{words} harmonic fill: MIM minus control is +0.0123" in text
    assert f"sets: {words} chance (0.5)" in text


def test_summary_is_by_the_metric_that_decides(tmp_path, undrawn):
    run = a_run()
    run["results"]["decision"]["metric"] = "hbd"
    text = page_of(tmp_path, run).text
    assert "HBD, the metric that the configuration names" in text
    for kind in ("augmented", "plain"):
        assert (
            f"{run['results']['auroc'][kind]['mim']['hbd']['mean']:.4f}" in text.split("AUROC by metric")[0]
        )


def test_figures_take_the_rows_that_they_are_about(monkeypatch):
    run = a_run()
    folds = run["results"]["auroc"]["augmented"]["mim"]["ssim_hbd"]["folds"]
    for value, fold in zip((0.7, 0.9, 0.6), folds, strict=True):
        fold["value"] = value
    for row in run["scores"]:  # rows outside the augmented set would be seen at once
        if row["copy"] == 0 and row["positive"] and row["name"] == "0.jpg":
            row |= {"augmented": False, "ssim_hbd": 5.0}
    seen: dict[str, list[Any]] = {"roc": [], "histogram": []}
    monkeypatch.setattr(figures, "roc_figure", lambda curves, *_, **__: seen["roc"].append(curves) or b"")
    monkeypatch.setattr(figures, "histogram_figure", lambda *args, **_: seen["histogram"].append(args) or b"")
    figures.draw(run["results"], run["scores"], [], panels_of(0))
    for fold, curves in zip((1, 2), seen["roc"], strict=True):
        for method in METHODS:
            rows = [
                row
                for row in run["scores"]
                if row["fold"] == fold and row["method"] == method and row["name"] != "0.jpg"
            ]
            expected = roc_auc_score([row["positive"] for row in rows], [row["ssim_hbd"] for row in rows])
            assert auc(*curves[method]) == pytest.approx(expected)
    ((series, thresholds, pooled),) = seen["histogram"]
    assert {name: len(values) for name, values in series.items()} == {
        "mpox": 9,
        "dermoscopy": 21,
        "other classes": 21,
    }
    assert thresholds == [0.5, 0.625] and pooled == 0.5625


def test_same_input_gives_the_same_bytes_and_leaves_matplotlib_alone(tmp_path, written):
    before = dict(matplotlib.rcParams)
    again = write_report(tmp_path, **a_run(notice="These are procedural images."))
    assert again.read_bytes() == written.read_bytes()
    assert dict(matplotlib.rcParams) == before
    for file in (tmp_path / "figures").iterdir():
        assert set(Image.open(io.BytesIO(file.read_bytes())).info) <= {"dpi"}  # no date, no software


def test_page_of_full_size_images_stays_below_four_megabytes(tmp_path):
    run = a_run() | {"panels": panels_of(38, size=224)}
    assert write_report(tmp_path, **run).stat().st_size < 4_000_000


def test_small_runs_have_a_page_too(tmp_path):
    run = a_run(folds=2, controls=False) | {"history": [], "panels": panels_of(0)}
    results = run["results"]
    results["per_group"], results["differences"] = {}, {}
    results["per_class"] = {"mim": {"acne": results["per_class"]["mim"]["acne"]}}
    results["data"] |= {
        "classes": {"acne": 9, "mpox": 12},
        "class_groups": {},
        "unusable": [],
        "grouped": False,
    }
    results["decision"] |= {"thresholds": [None, None], "pooled": None}
    results["wall_time"]["train"] = []
    page = page_of(tmp_path, run)
    assert "1 other class with" in page.text and "No untrained control was scored" in page.text
    assert "Every file could be used" in page.text and "without regard to groups" in page.text
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == {
        "roc_best",
        "roc_worst",
        "per_class",
        "histograms",
    }


def test_panels_show_original_masked_inpainted_and_difference():
    image = np.full((1, 32, 32, 3), 0.5, np.float32)
    inpainted = image.copy()
    inpainted[:, 8:24, 8:24] = 1.0
    one = {
        "names": ["a"],
        "classes": ["b"],
        "scores": [0.5],
        "folds": [0],
        "positive": [True],
        "kind": ["best"],
    }
    columns = {name: np.array(value) for name, value in one.items()}
    panels = Panels(images=image, inpainted=inpainted, offset=(8, 8), mask_size=16, **columns)
    drawn = np.asarray(Image.open(io.BytesIO(panel_figure(panels, [0], cell=100))).convert("RGB"))
    grey, white, black = (
        [128] * 3,
        [255] * 3,
        (np.array(matplotlib.colormaps["magma"](0.0)[:3]) * 255).round(),
    )
    brightest = (np.array(matplotlib.colormaps["magma"](1.0)[:3]) * 255).round()
    for column, (hole, rim) in enumerate([(grey, grey), (white, grey), (white, grey), (brightest, black)]):
        for expected, place in (
            (hole, 50),
            (rim, 8),
        ):  # pixels from the upper left corner of a 100-pixel cell
            np.testing.assert_allclose(drawn[20 + place, column * 104 + place], expected, atol=2)


def test_panels_are_checked_and_ordered_by_score():
    panels = panels_of(18)
    with pytest.raises(ValueError, match=r"names has 3 entries for 18 images"):
        Panels(**{**vars(panels), "names": panels.names[:3]})
    with pytest.raises(ValueError, match=r"unknown kind of panel 'odd': use one of typical, best, worst"):
        Panels(**{**vars(panels), "kind": np.array(["odd"] * 18)})
    rows = panels.figures()
    assert sorted(np.concatenate(list(rows.values()))) == list(range(18))
    assert np.all(np.diff(panels.scores[rows["panels_others_best_1"]]) <= 0)
    assert np.all(np.diff(panels.scores[rows["panels_others_worst_1"]]) >= 0)
