"""Hostile bytes quickly give pixels or a one-line reason; hostile file names stay on one line."""

import csv
import io
import time

import numpy as np
import pytest
from PIL import Image, ImageCms

from mim_jax.cli.score import write_table
from mim_jax.data.dataset import printable
from mim_jax.data.folder import from_folder
from mim_jax.data.images import UnusableImage, decode_image
from mim_jax.decide.decision import unusable
from mim_jax.deploy.bulk.rows import ScoredFile
from tests.stress import hostile


def test_damaged_files_of_every_kind_give_pixels_or_a_reason():
    rng = np.random.default_rng(1)
    files = list(hostile.seeds(rng))
    assert len(files) > 80
    for file in files:
        assert not hostile.kind_of(file).startswith(("LOST", "damaged", "an abnormal")), file[:16]
    lost = {hostile.kind_of(hostile.hostile(rng, files)[1]) for _ in range(800)}
    assert not [kind for kind in lost if kind.startswith("LOST")]


def test_bombs_are_refused_before_they_cost_time():
    for name, data in hostile.bombs(scale=1).items():
        began = time.thread_time()
        kind = hostile.kind_of(data)
        assert time.thread_time() - began < 1.5, name
        # Overlapping tags are read only up to the length of the file, skipped pixels are black, and texts and
        # profiles of a PNG are not read.
        clean = any(word in name for word in ("overlapping", "passes over", "profile", "text"))
        said = ("an image",) if clean else ("an abnormal", "tiles of", "too large", "damaged")
        assert kind.startswith(said), (name, kind)


def test_parts_that_encoders_write_are_no_bomb():
    strips, scans = io.BytesIO(), io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 40, 3), dtype=np.uint8))
    picture.save(strips, "TIFF", tiffinfo={278: 1})
    picture.save(scans, "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 100)
    for file in (strips, scans):
        assert decode_image(file.getvalue(), size=40).shape == (40, 40, 3)


def test_more_parts_than_encoders_write_are_refused_by_name():
    bombs = hostile.bombs(scale=1)
    for name, said in {
        "JPEG of many scans": "more than 40 scans; save it again",
        "JPEG of many blocks of EXIF": "more than 64 blocks of EXIF",
        "PNG of many chunks": "more than 200,000 parts",
    }.items():
        with pytest.raises(UnusableImage, match=said):
            decode_image(bombs[name], size=40)


def test_a_profile_changes_no_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), b"no profile"):
        for format in ("PNG", "TIFF"):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, format, icc_profile=profile)
            np.testing.assert_array_equal(decode_image(file.getvalue(), size=40), pixels)


def test_names_with_breaks_markup_and_foreign_bytes_stay_on_one_line(tmp_path):
    folder = tmp_path / "mpox"
    folder.mkdir()
    names = ["a\nb.png", 'q"<script>.png', "\x1b[2Jc.png", "\u202egnp.png", "caf\udce9.png", "d\r.png"]
    for name in names:
        (folder / name).write_bytes(hostile.png(40, 40, body=bytes(40 * 121)))
    found = from_folder(tmp_path, size=32, positive="mpox").names.tolist()
    assert len(set(found)) == len(names) and all(name.isprintable() for name in found)
    assert "mpox/a\\nb.png" in found and "mpox/caf\\xe9.png" in found and 'mpox/q"<script>.png' in found
    assert printable("Müller 1.png") == "Müller 1.png"


def test_a_manifest_that_never_ends_is_refused(tmp_path):
    (tmp_path / "mpox").mkdir()
    (tmp_path / "mpox" / "a.png").write_bytes(hostile.png(40, 40, body=bytes(40 * 121)))
    (tmp_path / "manifest.csv").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"manifest\.csv cannot be read .*not a regular file"):
        from_folder(tmp_path, size=32, positive="mpox")


def test_scores_csv_gives_hostile_names_back(tmp_path):
    names = ["a\nb.png", 'q"<script>,.png', "caf\udce9.png"]
    rows = [ScoredFile(name, unusable("no such file")) for name in names]
    write_table(tmp_path / "scores.csv", rows, metrics=("mae",), folds=1)
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        read = [row["file"] for row in csv.DictReader(file)]
    assert read == [*names[:2], "caf\\udce9.png"]
