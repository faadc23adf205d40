"""Figure 5: which picture is drawn where, and how panels are ordered."""

import io
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
from PIL import Image

from mim_jax.evaluate.panels import Panels, choose_panels
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.report.figures.pictures import arrange, cell_side, panel_figure, strip_figure
from tests.invented import panels_of


def test_panels_show_original_masked_inpainted_difference_and_similarity():
    image = np.full((1, 32, 32, 3), 0.5, np.float32)
    inpainted = image.copy()
    inpainted[:, 8:24, 8:24] = 1.0
    maps = np.ones((1, 32, 32))
    maps[:, 8:24, 8:24] = -0.5
    one = {
        "names": ["a"],
        "classes": ["b"],
        "scores": [0.5],
        "folds": [0],
        "positive": [True],
        "kind": ["best"],
    }
    columns = {name: np.array(value) for name, value in one.items()}
    panels = Panels(images=image, inpainted=inpainted, offset=(8, 8), mask_size=16, maps=maps, **columns)
    drawn = np.asarray(Image.open(io.BytesIO(panel_figure(panels, [0], cell=100))).convert("RGB"))
    grey, white = [128] * 3, [255] * 3
    black, brightest, alike, unlike = (
        (np.array(matplotlib.colormaps[name](value)[:3]) * 255).round()
        for name, value in (("magma", 0.0), ("magma", 1.0), ("cividis", 0.0), ("cividis", 1.0))
    )
    columns = [(grey, grey), (white, grey), (white, grey), (brightest, black), (unlike, alike)]
    side = drawn.shape[1] / 5  # a cell with its gap
    for column, (hole, rim) in enumerate(columns):
        for expected, place in ((hole, 50), (rim, 8)):  # pixels from the upper left corner of the cell
            found = drawn[drawn.shape[0] - 121 + place, int(column * (side + 0.8)) + place]
            np.testing.assert_allclose(found, expected, atol=2)


def test_where_nothing_is_inpainted_the_originals_stand_alone():
    panels = replace(panels_of(18), inpainted=None, maps=None, mask_size=0)
    for png in (strip_figure(panels), panel_figure(panels, range(5), cell=48)):
        drawn = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
        found = {tuple(pixel) for pixel in drawn.tolist()}
        first = {tuple(pixel) for pixel in panels.images[0].reshape(-1, 3).tolist()}
        assert len(first & found) > 200  # of 256 pixels of noise


def test_panels_are_ordered_by_score():
    panels = panels_of(18)
    rows = arrange(panels)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(18))
    assert np.all(np.diff(panels.scores[rows["panels_others_best_1"]]) <= 0)
    assert np.all(np.diff(panels.scores[rows["panels_others_worst_1"]]) >= 0)


def test_cells_shrink_so_that_many_photographs_fit_the_page():
    few, many = (cell_side(panels_of(count, size=224)) for count in (4, 60))
    assert few == 200 and 48 <= many < 100
    assert cell_side(panels_of(3, size=32)) == 48


def test_panels_of_a_detector_that_inpaints_nothing_are_chosen_by_score():
    labels = np.array(["mpox", "mpox", "acne", "acne", "nv", "nv"])
    scored = ScoredImages(
        names=np.array([f"{i}.jpg" for i in range(6)]),
        classes=labels,
        groups=np.arange(6).astype(str),
        copies=np.zeros(6, int),
        positive=labels == "mpox",
        augmented=np.ones(6, bool),
        plain=np.ones(6, bool),
        similarities={"features": np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.7])},
    )
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    test_set = SimpleNamespace(images=images, table=scored, parts=[np.arange(6)])
    chosen = choose_panels(test_set, [], [scored], metric="features")
    assert chosen.inpainted is None and chosen.maps is None
    kinds = [
        (kind, own, name) for kind, own, name in zip(chosen.kind, chosen.positive, chosen.names, strict=True)
    ]
    assert ("worst", True, "0.jpg") in kinds and ("best", False, "3.jpg") in kinds
    assert [f"{image[0, 0, 0]}.jpg" for image in chosen.images] == chosen.names.tolist()
