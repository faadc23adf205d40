"""The score table is read back as it was written, refused if damaged, and checked when made."""

import csv
from dataclasses import fields, replace

import numpy as np
import pytest

from mim_jax.classifiers import ood_scores
from mim_jax.data.dataset import printable
from mim_jax.evaluate.scores import COLUMNS, ScoredImages, read_scores, two_sides, write_scores
from mim_jax.measure import METRICS
from tests.invented import HOSTILE

NAMES = [HOSTILE, 'a,"b",\r\n', "=1+1", " lead", "\u202e中", "True", "nan"]


def images(seed, names=METRICS, *, seen=False):
    """One image per hostile name, with differing values in every column."""
    generator = np.random.default_rng(seed)
    count = len(NAMES)
    return ScoredImages(
        names=np.array(NAMES),
        classes=np.array(NAMES[::-1]),
        groups=np.roll(NAMES, 1),
        copies=np.arange(count),
        positive=np.arange(count) % 2 == 0,
        augmented=np.arange(count) % 3 > 0,
        plain=np.arange(count) % 4 == 0,
        # Numbers that lose digits unless they are written in full.
        similarities={
            name: generator.normal(size=count) * 10.0 ** generator.integers(-300, 9, count) for name in names
        },
        decisions=np.array(["mpox_like", "", "cannot_tell", "not_mpox_like", "", "", ""]),
        seen=np.arange(count) % 3 == 1 if seen else np.zeros(count, bool),
    )


def check_equal(found, expected):
    for item in fields(ScoredImages):
        one, two = getattr(found, item.name), getattr(expected, item.name)
        if item.name == "similarities":
            assert list(one) == list(two)
            for name in one:
                np.testing.assert_array_equal(one[name], two[name])
                assert one[name].dtype == np.float64
        else:
            np.testing.assert_array_equal(one, two)
            assert one.dtype.kind == two.dtype.kind, item.name


def test_mims_table_is_read_back_as_it_was_written(tmp_path):
    methods = {"mim": images(0), "brightness": images(1, ["score"]), "mean_fill": images(2)}
    path = tmp_path / "scores.csv"
    write_scores(path, 3, methods, scores=(*METRICS, "score"))
    found = read_scores(path, methods=("brightness", "mim", "absent"), needed=("ssim_hbd",))
    assert list(found) == ["brightness", "mim"]
    for name, table in found.items():
        check_equal(table, methods[name])
    with path.open(newline="") as file:
        header, first, *_ = csv.reader(file)
    assert header == [
        *("fold", "method", "name", "class", "group", "copy", "augmented", "plain", "positive"),
        *(*METRICS, "score", "decision"),
    ]
    assert first[:3] == ["3", "mim", HOSTILE] and first[-2:] == ["", "mpox_like"]
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]  # no half-written file is left


def test_a_classifiers_table_is_read_back_as_it_was_written(tmp_path):
    table = images(0, ood_scores.SCORES, seen=True)
    write_scores(tmp_path / "scores.csv", 0, {"resnet50": table}, scores=ood_scores.SCORES, seen=True)
    needed = ("seen", *ood_scores.SCORES)
    check_equal(read_scores(tmp_path / "scores.csv", methods=("resnet50",), needed=needed)["resnet50"], table)


def test_a_name_that_no_text_can_hold_is_written_readably(tmp_path):
    """Linux allows file names that are not UTF-8; Python represents them with lone surrogates."""
    table = replace(images(0), names=np.array(["\udcff.png", *NAMES[1:]]))
    write_scores(tmp_path / "scores.csv", 0, {"mim": table}, scores=METRICS)
    found = read_scores(tmp_path / "scores.csv", methods=("mim",), needed=())["mim"]
    assert found.names[0] == "\\udcff.png" and found.names[1:].tolist() == NAMES[1:]


@pytest.fixture
def rows(tmp_path):
    """Rows of a written table, header first, and a function that writes changed rows and reads them."""
    path = tmp_path / "scores.csv"
    write_scores(path, 0, {"mim": images(0), "resnet50": images(1)}, scores=METRICS, seen=True)
    with path.open(newline="") as file:
        table = list(csv.reader(file))

    def read(changed):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(changed)
        return read_scores(path, methods=("mim",), needed=("seen", "ssim_hbd"))

    return table, read


@pytest.mark.parametrize("column", ["method", *sorted(set(COLUMNS.values()) - {"decision"}), "ssim_hbd"])
def test_a_missing_column_is_named(rows, column):
    table, read = rows
    place = table[0].index(column)
    with pytest.raises(
        ValueError, match=rf"scores\.csv cannot be read \(it has no column '{column}'\): evaluate"
    ):
        read([row[:place] + row[place + 1 :] for row in table])


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("ssim_hbd", "high", "ssim_hbd is 'high', which is not a number"),
        ("ssim_hbd", "nan", r"ssim_hbd of .* is nan \(1 of 7 scores are not finite\)"),
        ("ssim_hbd", "-inf", "ssim_hbd of .* is -inf"),
        ("ssim_hbd", "", "ssim_hbd is '', which is not a number"),
        ("copy", "one", "copy is 'one', which is not a number"),
        ("plain", "yes", "plain is 'yes', neither True nor False"),
        ("seen", "", "seen is '', neither True nor False"),
    ],
)
@pytest.mark.parametrize("line", [1, 2])
def test_an_invalid_value_is_named(rows, column, value, words, line):
    table, read = rows
    table[line][table[0].index(column)] = value
    with pytest.raises(ValueError, match=words) as raised:
        read(table)
    text = str(raised.value)
    assert text.isprintable() and text.endswith("evaluate that run again with --mode=evaluate")
    if " of .* is" in words:  # the image is named, on one line
        assert printable(NAMES[line - 1]) in text


def test_rows_of_other_methods_are_passed_over_whatever_they_hold(rows):
    table, read = rows
    table[1][table[0].index("method")] = "vgg"
    table[1][table[0].index("ssim_hbd")] = "high"
    assert read(table)["mim"].names.tolist() == NAMES[1:]


def test_a_damaged_file_is_refused(tmp_path, rows):
    table, read = rows
    with pytest.raises(ValueError, match=r"line \d+ has 3 columns, not 16"):
        read([*table[:-1], table[-1][:3]])
    with pytest.raises(ValueError, match="it has no column 'method'"):
        read([])
    path = tmp_path / "scores.csv"
    path.write_bytes(b"\xff\xfe not text")
    with pytest.raises(ValueError, match=r"scores\.csv cannot be read \(.*decode"):
        read_scores(path, methods=("mim",), needed=())
    with pytest.raises(ValueError, match=r"gone\.csv does not exist, although results.json lists this fold"):
        read_scores(tmp_path / "gone.csv", methods=("mim",), needed=())


def test_columns_of_unequal_length_and_scores_that_are_not_finite_are_refused():
    table = images(0)
    with pytest.raises(ValueError, match="mae has 3 entries for 7 images: one per image is needed"):
        replace(table, similarities={"mae": np.zeros(3)})
    with pytest.raises(ValueError, match="groups has 6 entries for 7 images"):
        replace(table, groups=table.groups[:6])
    scores = np.ones(7)
    scores[[3, 5]] = np.nan
    with pytest.raises(ValueError, match=r"mae of  lead is nan \(2 of 7 scores are not finite\)"):
        replace(table, similarities={"mae": scores})


def test_selected_images_keep_all_that_belongs_to_them():
    table = images(0, seen=True)
    picked = table.select(np.array([4, 1]))
    for item in fields(ScoredImages):
        if item.name != "similarities":
            assert getattr(picked, item.name).tolist() == getattr(table, item.name)[[4, 1]].tolist()
    assert {name: values.tolist() for name, values in picked.similarities.items()} == {
        name: values[[4, 1]].tolist() for name, values in table.similarities.items()
    }
    assert table.originals().copies.tolist() == [0, 4]


def test_two_sides_are_positives_then_negatives():
    table = two_sides({"mae": np.arange(3.0)}, np.array(["p", "p"]), np.array(["n"]))
    assert table.positive.tolist() == [True, True, False] and table.groups.tolist() == ["p", "p", "n"]
    assert table.plain.all() and table.augmented.all() and not table.seen.any()
