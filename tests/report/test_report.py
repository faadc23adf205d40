"""The report page: self-contained, escaped, faithful to its numbers, and the same bytes each time."""

import base64
import io
import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mim_jax.evaluate.mim import Evaluated
from mim_jax.report import figures
from mim_jax.report.figures.pictures import arrange, cell_side, panel_figure
from mim_jax.report.format import SHORT_NOTICE
from mim_jax.report.report import write_report
from tests.deploy import chromium
from tests.invented import HOSTILE, METHODS, Page, evaluated, panels_of


@pytest.fixture
def undrawn(monkeypatch):
    """Skip the figures, which take most of the time, in tests of the text alone."""
    monkeypatch.setattr(figures, "draw", lambda *_, **__: {})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The path of a page with a notice and all its figures."""
    return write_report(tmp_path_factory.mktemp("run"), evaluated(notice="These are procedural images."))


def page_of(workdir, run: Evaluated) -> Page:
    return Page(write_report(workdir, run).read_text(encoding="utf-8"))


def test_one_file_with_every_figure_inside_and_nothing_fetched(written):
    assert written.name == "report.html"
    text = written.read_text(encoding="utf-8")
    page = Page(text)
    assert "://" not in text and "url(" not in text and "@import" not in text
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    anchors = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    headings = [f"#{attributes['id']}" for tag, attributes in page.elements if tag == "h2"]
    assert anchors == headings and len(set(headings)) > 9  # the table of contents lists every heading once
    prefix = "data:image/png;base64,"
    assert all(source.startswith(prefix) for source in sources)
    embedded = sorted(base64.b64decode(source[len(prefix) :]) for source in sources)
    assert embedded == sorted(file.read_bytes() for file in (written.parent / "figures").glob("*.png"))
    names = {file.stem for file in (written.parent / "figures").iterdir()}
    assert {"roc_best", "roc_worst", "per_class", "per_group", "histograms", "learning_rate"} <= names
    assert {"noise_sweep", "robustness", "strip", "aurocs", "differences"} <= names
    assert "panels_training_typical_1" in names and "panels_others_worst_1" in names


@chromium.with_axe
def test_the_page_is_accessible(written):
    with chromium.Browser() as browser:
        browser.open(written.as_uri())
        assert browser.findings() == {}


def test_what_comes_from_data_cannot_become_markup(tmp_path):
    run = evaluated(notice=HOSTILE)
    results, data = run.results, run.results["data"]
    results["title"] = data["source"] = data["digest"] = results["decision"]["rule"] = HOSTILE
    data["unusable"] = data["group_problems"] = [[HOSTILE, HOSTILE + "\udcff"]]
    data["duplicates"], data["left_out"], data["remarks"] = [[HOSTILE, HOSTILE]], [HOSTILE], [HOSTILE]
    data["positive"], data["classes"] = HOSTILE, {HOSTILE: 3, HOSTILE + "2": 4}
    data["groups"] = data["classes"]
    data["class_groups"] = {HOSTILE: [HOSTILE + "2"]}
    counts = {"n": 2, "mpox_like": 1, "cannot_tell": 1, "not_mpox_like": 0}
    results["decision"] |= {"table": {HOSTILE: counts}, "promise": HOSTILE, "band": HOSTILE}
    results["decision"]["alternatives"] = {
        name: {"lower": 0.5, "origin": HOSTILE, "promise": HOSTILE, "table": {HOSTILE: counts}}
        for name in ("paper", HOSTILE)
    }
    results["decision"]["reliability"][0]["false_alarms"][HOSTILE] = {
        "cases": 2, "value": 0.5, "low": 0.0, "high": 1.0
    }  # fmt: skip
    results["config"] = {"</pre>": HOSTILE}
    clinical, sheet = results["clinical"], results["robustness"]
    clinical["source"] = clinical["digest"] = HOSTILE
    clinical["classes"] = {HOSTILE: 3}
    sheet["axes"] = {HOSTILE: {**sheet["axes"]["noise"], "unit": HOSTILE}}
    results["environment"]["versions"] = {HOSTILE: HOSTILE}
    for part in ("per_class", "per_group"):
        results[part] = {method: {HOSTILE: values.popitem()[1]} for method, values in results[part].items()}
    named = np.array([HOSTILE] * len(run.panels.names))
    run = replace(run, panels=replace(run.panels, names=named, classes=named))
    page = page_of(tmp_path, run)
    assert "script" not in {tag for tag, _ in page.elements}
    allowed = {"class", "src", "alt", "lang", "charset", "name", "content", "http-equiv", "tabindex", "scope"}
    allowed |= {"colspan", "id", "href", "aria-label"}
    assert all(set(attributes) <= allowed for _, attributes in page.elements)
    shown = HOSTILE.replace("\n", "\\n").replace("\u202e", "\\u202e")
    assert page.text.count(shown) > 25 and shown + "\\xff" in page.text


def test_notice_stands_in_every_title(written):
    page = Page(written.read_text(encoding="utf-8"))
    pictures = sum(tag == "img" for tag, _ in page.elements)
    assert len(page.titles) == pictures + len(page.tables) and pictures > 14
    for kind in ("Figure", "Table"):
        numbers = [int(title.split()[1].rstrip(".")) for title in page.titles if title.startswith(kind)]
        assert numbers == list(range(1, len(numbers) + 1))
    assert all(title.startswith(("Figure", "Table")) for title in page.titles)
    assert all(SHORT_NOTICE in title for title in page.titles)
    assert page.text.index("These are procedural images.") < page.text.index("The AUROC of MIM")


def test_without_a_notice_nothing_is_said_of_procedural_images(tmp_path, undrawn):
    assert "procedural" not in page_of(tmp_path, evaluated()).text


def test_notice_is_drawn_into_every_figure(written):
    without = figures.draw(evaluated())
    assert len(without) > 14
    for name, png in without.items():
        noted = (written.parent / "figures" / f"{name}.png").read_bytes()
        assert Image.open(io.BytesIO(noted)).height > Image.open(io.BytesIO(png)).height


def first_screen(page: Page) -> str:
    return page.text[page.text.index("The AUROC of") : page.text.index("Contents")]


@pytest.mark.parametrize(
    ("images", "folds", "words"),
    [
        ((0.01, 0.05), (0.01, 0.06), "better than it"),
        ((-0.05, -0.01), (-0.06, -0.01), "worse than it"),
        ((-0.01, 0.02), (0.01, 0.02), "not significantly different from it"),
        (
            (0.01, 0.05),
            (-0.01, 0.06),
            "not significantly different from it better for these networks, perhaps not after retraining",
        ),
    ],
)
@pytest.mark.parametrize(
    ("method", "name"), [("harmonic_fill", "harmonic fill"), ("brightness", "darkness *")]
)
def test_comparison_says_what_the_intervals_of_each_difference_allow(
    tmp_path, undrawn, images, folds, words, method, name
):
    run = evaluated()
    estimate = dict(zip(("low", "high", "low_folds", "high_folds"), (*images, *folds), strict=True))
    run.results["differences"][method]["ssim_hbd"] = {"mean": 0.0123, **estimate}
    rows = page_of(tmp_path, run).table(
        "Table. Detectors, baselines and variants by SSIM+HBD on the augmented"
    )
    assert rows[name][1].startswith("+0.0123") and rows[name][2] == words


@pytest.mark.parametrize(
    ("better", "words"),
    [
        (4, "better than all 4 baselines."),
        (3, "Of 4 baselines, it is worse than 1 and better than 3."),
        (0, "worse than all 4 baselines."),
    ],
)
def test_first_screen_counts_the_baselines_the_worst_first(tmp_path, undrawn, better, words):
    run = evaluated()
    for place, method in enumerate(("mean_fill", "harmonic_fill", "autoencoder", "brightness")):
        low = 0.1 if place < better else -0.2
        estimate = {"low": low, "high": low + 0.1, "low_folds": low, "high_folds": low + 0.1}
        run.results["differences"][method]["ssim_hbd"] |= estimate
    assert words in first_screen(page_of(tmp_path, run))


def test_first_screen_compares_with_every_other_detector(tmp_path, undrawn):
    run = evaluated(methods=(*METHODS, "features", "features_color"))
    for method, low in (("features", -0.2), ("features_color", 0.1)):
        estimate = {"low": low, "high": low + 0.1, "low_folds": low, "high_folds": low + 0.1}
        run.results["differences"][method]["ssim_hbd"] |= estimate
    words = "Among the detectors it is worse than frozen features and better than features and colours."
    assert words in first_screen(page_of(tmp_path, run))


def test_first_screen_has_each_number_once_and_says_how_many_cannot_be_told(tmp_path, undrawn):
    run = evaluated()
    run.results["decision"]["table"]["acne"]["mpox_like"] = 7
    shown = first_screen(page_of(tmp_path, run))
    numbers = re.findall(r"\d+\.\d+", shown)
    assert len(numbers) == len(set(numbers))
    assert "33.3 % of mpox images are undecided and 8.3 % are missed" in shown  # 4 and 1 of 12
    own = run.results["auroc"]["augmented"]["mim"]["ssim_hbd"]
    assert f"{own['mean']:.4f} (95 % [{own['low_folds']:.4f}, {own['high_folds']:.4f}]" in shown


def test_first_screen_compares_with_chance(tmp_path, undrawn):
    run = evaluated()
    estimate = run.results["auroc"]["augmented"]["mim"]["ssim_hbd"]
    estimate |= {"low": 0.51, "high": 0.6, "low_folds": 0.505, "high_folds": 0.7}
    assert "0.7000]): better than chance" in page_of(tmp_path, run).text
    estimate |= {"low_folds": 0.49}
    words = "not significantly different from chance (better for these networks"
    assert words in page_of(tmp_path, run).text


def test_page_is_by_the_metric_that_decides(tmp_path, undrawn):
    run = evaluated(metric="hbd")
    page = page_of(tmp_path, run)
    assert "HBD is the metric that the configuration names" in page.text
    assert f"{run.results['auroc']['augmented']['mim']['hbd']['mean']:.4f}" in first_screen(page)


def test_images_that_the_gate_flags_and_files_not_read_are_listed(tmp_path, undrawn):
    run = evaluated()
    assert "Every image passes the input gate." in page_of(tmp_path, run).text  # older results list none
    run.results["data"] |= {
        "doubtful": [["acne/1.jpg", "blurred"]],
        "passed_over": [["acne/x.txt", "a text"]],
    }
    run.results["clinical"] |= {
        "doubtful": [["normal/2.jpg", "too dark"]],
        "unusable": [["bad.jpg", "damaged"]],
    }
    page = page_of(tmp_path, run)
    for title, row, reason in (
        ("Images that failed the input gate", "acne/1.jpg", "blurred"),
        ("Files and folders that were not read", "acne/x.txt", "a text"),
        ("Clinical files that could not be used", "bad.jpg", "damaged"),
        ("Clinical files that failed the input gate", "normal/2.jpg", "too dark"),
    ):
        assert page.table(f"Table. {title}")[row] == [reason]
    card = " ".join((tmp_path / "model_card.md").read_text().split())
    assert "were not read: 1. Images that failed the input gate" in card


def test_no_page_tells_where_the_images_lie_on_this_computer(tmp_path, undrawn):
    run = evaluated()
    run.results["data"]["source"] = run.results["clinical"]["source"] = "/home/somebody/skin"
    page = page_of(tmp_path, run)
    assert "/home" not in page.text + (tmp_path / "model_card.md").read_text()
    assert "Source: folder skin;" in page.text


def test_data_sheet_tells_what_was_left_out_joined_and_noticed(tmp_path, undrawn):
    run = evaluated()
    page = page_of(tmp_path, run)
    for words in (
        "1 file could not be used.",
        "1 set of near-duplicates was put into one group.",
        "1 image was left out of the test because it shares a group with mpox.",
        "1 problem with groups.",
        "The source nv holds 8 images; the paper has 100.",
    ):
        assert words in page.text
    assert page.table("Table. Images of each class")["nv"] == ["dermoscopy", "8", "5"]
    assert page.table("Table. Decisions by")["mpox"] == [
        "12", "7 58.3 %", "4 33.3 %", "1 8.3 %", "7 58.3 %"
    ]  # fmt: skip
    others = page.table("Table. Other thresholds")
    (own,) = [cells for name, cells in others.items() if name.startswith("calibrated")]
    assert own == ["0.5625", "1 8.3 %", "4 33.3 %", "9 33.3 %", "14 51.9 %"]
    promised = page.table("Table. Guaranteed and observed")["10.0 %"]
    found = run.results["decision"]["reliability"][0]
    assert promised[0].startswith(f"{100 * found['missed']['value']:.1f} %")
    assert promised[-3:] == ["41.7 %", "33.3 %", "33.3 %"]  # the mean of 6/12 and 9/27; 2/6; 3/9
    assert page.table("Table. Near-duplicates")["1"] == ["mpox/1.jpg, mpox/2.jpg"]


def test_same_input_gives_the_same_bytes_and_leaves_matplotlib_alone(tmp_path, written):
    before = dict(matplotlib.rcParams)
    again = write_report(tmp_path, evaluated(notice="These are procedural images."))
    assert again.read_bytes() == written.read_bytes()
    assert dict(matplotlib.rcParams) == before
    for file in (tmp_path / "figures").iterdir():
        assert set(Image.open(io.BytesIO(file.read_bytes())).info) <= {"dpi"}  # no date, no software


def test_page_of_full_size_images_stays_below_eight_megabytes(written):
    panels = panels_of(38, size=224)
    pngs = [panel_figure(panels, rows, cell=cell_side(panels)) for rows in arrange(panels).values()]
    assert written.stat().st_size + sum(map(len, pngs)) * 4 / 3 < 8_000_000


def test_small_runs_have_a_page_too(tmp_path):
    run = replace(evaluated(folds=1, methods=("mim",)), history=[], panels=panels_of(0))
    results = run.results
    results["per_group"], results["differences"] = {}, {}
    results["per_class"] = {"mim": {"acne": results["per_class"]["mim"]["acne"]}}
    results["data"] |= {"classes": {"acne": 9, "mpox": 12}, "class_groups": {}, "grouped": False}
    results["data"] |= {
        name: [] for name in ("unusable", "duplicates", "left_out", "group_problems", "remarks")
    }
    nothing = {"lower": None, "origin": "none", "promise": "none", "table": {}}
    results["decision"] |= {"thresholds": [None], "pooled": None, "table": {}, "reliability": []}
    results["decision"] |= {"upper": [None], "pooled_upper": None, "alternatives": {"calibrated": nothing}}
    results["wall_time"]["train"] = []
    results["clinical"] = results["robustness"] = None
    page = page_of(tmp_path, run)
    for words in (
        "1 other class is",
        "No baseline was scored",
        "Every file could be used.",
        "No near-duplicates were put into one group.",
        "without regard to groups",
        "There is no clinical test in this run",
        "There is no robustness sheet in this run",
    ):
        assert words in page.text
    drawn = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert drawn == {"roc_best", "per_class", "histograms", "aurocs"}


def test_the_model_card_lies_beside_the_page(written):
    card = (written.parent / "model_card.md").read_text(encoding="utf-8")
    assert card.startswith("---") and "not a medical device" in card
