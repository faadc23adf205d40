"""The data sources of the paper, from small files in their real layouts, names and formats; no network."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mim_jax.data.dataset import Dataset
from mim_jax.data.sources.load import count_differences, load_clinical, load_sources, shortfalls
from mim_jax.data.synthetic.lesions import CLASS_GROUPS, PAPER_COUNTS
from tests.data.downloads import DERMNET, ISIC, SIZE, load, put, refusal


@pytest.fixture(scope="module")
def joined(downloads, tmp_path_factory):
    """All three sources, 2 per class, prepared, then read: (data_dir, folders, both data sets, calls)."""
    data_dir = tmp_path_factory.mktemp("prepared")
    folders = {name: str(downloads / name) for name in ("isic2018", "msld", "dermnet")}
    calls = []
    first = load(folders, data_dir, per_class=2, seed=3, progress=lambda i, n: calls.append((i, n)))
    again = load(folders, data_dir, per_class=2, seed=3, progress=lambda i, n: pytest.fail("prepared again"))
    return data_dir, folders, first, again, calls


def test_the_sources_of_the_paper_join_in_its_classes(joined, downloads):
    _, _, dataset, _, calls = joined
    expected = {"mpox": 3, "chickenpox": 3, "measles": 3, "hfmd": 3}
    expected |= dict.fromkeys(CLASS_GROUPS["photograph"] + CLASS_GROUPS["dermoscopy"], 2)
    assert dataset.class_counts() == dict(sorted(expected.items()))
    assert dataset.names.tolist() == sorted(dataset.names) and len(set(dataset.names)) == len(dataset) == 42
    assert dataset.source == "Dermnet, ISIC 2018 task 3, MSLD v2.0"
    assert dataset.grouped and dataset.unusable == () and dataset.group_problems == ()
    assert [done for done, _ in calls] == list(range(1, 43)) and {total for _, total in calls} == {42}
    # Every image is the file of its name, scaled as this project scales images.
    for name, image in zip(dataset.names, dataset.images, strict=True):
        pixels = Image.open(downloads / name).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(pixels, dtype=int) - image).max() <= 1


def test_labels_and_groups_are_those_of_files_and_tables(joined):
    dataset = joined[2]
    for name, label, group in zip(dataset.names, dataset.labels, dataset.groups, strict=True):
        source, file = name.split("/")[0], name.split("/")[-1]
        if source == "msld":
            code, patient = re.match(r"([A-Z]+)_0*(\d+)_", file).groups()
            names = {"MKP": "mpox", "CHP": "chickenpox", "MSL": "measles", "HFMD": "hfmd"}
            assert label == names[code] and group == f"msld/{label}/{patient}"
        elif source == "isic2018":
            c, i = divmod(int(file[5:12]) - 24306, 100)
            assert label == ISIC[c].lower() and group == f"isic2018/HAM_{c}{i // 2:06}"
        else:
            assert DERMNET[name.split("/")[2]] == label and group == name


def test_the_second_call_reads_what_the_first_prepared(joined):
    _, _, first, again, _ = joined
    assert first.digest() == again.digest() and first.source == again.source


def test_the_defaults_are_those_of_the_paper(downloads, tmp_path):
    dataset = load_sources({"isic2018": downloads / "isic2018"}, data_dir=tmp_path, size=224, positive="nv")
    assert dataset.images.shape == (28, 224, 224, 3) and len(shortfalls(dataset, per_class=100)) == 7
    assert (tmp_path / "isic2018/224px_from_32px_100_of_seed_0/1.1.0").is_dir()


def test_the_draw_follows_the_seed_and_moves_no_other_class(downloads, tmp_path, copy):
    def drawn(folder, seed, data_dir):
        dataset = load({"isic2018": folder}, data_dir, per_class=2, seed=seed, positive="nv")
        return set(dataset.names)

    draws = [drawn(downloads / "isic2018", seed, tmp_path / "a") for seed in range(3)]
    assert len({tuple(sorted(names)) for names in draws}) == 3
    assert draws[0] == drawn(downloads / "isic2018", 0, tmp_path / "b")
    # A class with one more image is drawn again, the others are not.
    spoiled = copy("isic2018")
    put(spoiled / "ISIC2018_Task3_Training_Input" / "ISIC_0000001.jpg")
    for file, row in {
        "GroundTruth": "ISIC_0000001,1,0,0,0,0,0,0",
        "LesionGroupings": "ISIC_0000001,X,",
    }.items():
        path = next(spoiled.rglob(f"*_{file}.csv"))
        path.write_text(f"{path.read_text()}\n{row}\n")
    moved = drawn(spoiled, 0, tmp_path / "c") ^ draws[0]
    assert all("ISIC_00243" in name or "ISIC_0000001" in name for name in moved)


def test_unusable_images_are_replaced_from_their_class_and_listed(copy, tmp_path):
    folder = copy("dermnet")
    eczema = sorted((folder / "train/Eczema Photos").iterdir())
    eczema[0].write_bytes(b"")
    put(eczema[1], side=8)
    for path in (folder / "train/Vasculitis Photos").iterdir():
        path.write_bytes(b"\xff\xd8\xff cut")
    Image.new("RGB", (40, 40), "tan").save(folder / "test/Urticaria Hives/one colour.png")
    for _ in range(2):  # prepared, then read
        dataset = load({"dermnet": folder}, tmp_path / "prepared", per_class=3, positive="eczema")
        counts = dataset.class_counts()
        assert counts["eczema"] == 1 and counts["vasculitis"] == 1 and counts["bullous"] == 3
        reasons = dict(dataset.unusable)
        assert len(reasons) == 4 and "8x8 pixels" in reasons[f"dermnet/train/Eczema Photos/{eczema[1].name}"]
        assert shortfalls(dataset, per_class=3) == [
            "eczema: 1 image could be drawn from dermnet, 3 were asked for.",
            "vasculitis: 1 image could be drawn from dermnet, 3 were asked for.",
        ]
    one = load({"dermnet": folder}, tmp_path / "prepared", per_class=1, positive="eczema")
    assert set(one.class_counts().values()) == {1} and shortfalls(one, per_class=1) == []
    whole = load({"dermnet": folder}, tmp_path / "prepared", positive="eczema")
    assert whole.class_counts()["urticaria"] == 4  # the decoder accepts an image of one colour


def test_a_class_of_two_sources_and_a_class_of_none(downloads, tmp_path):
    put(tmp_path / "clinic/Eczema/1.jpg")
    folders = {"dermnet": downloads / "dermnet", "clinical": tmp_path / "clinic"}
    clash = refusal(folders, tmp_path / "prepared", positive="eczema")
    assert "the class 'eczema' is in clinical and in dermnet" in clash
    lacking = refusal({"dermnet": downloads / "dermnet"}, tmp_path / "prepared")
    assert "no source has the class 'mpox'" in lacking and "bullous" in lacking
    assert not (tmp_path / "prepared").exists()


def test_a_damaged_or_foreign_preparation_is_refused(joined, copy, tmp_path):
    prepared, folders, first, _, _ = joined
    options = {"per_class": 2, "seed": 3}
    for source, spoil, words in (
        ("msld", lambda where: flip(next(where.glob("*array_record*"))), "array_record-.* has changed"),
        (
            "dermnet",
            lambda where: (where / "dataset_info.json").write_text("{"),
            "info.json has changed",
        ),
        ("isic2018", lambda where: (where / "prepared.json").unlink(), "no readable prepared.json"),
        ("isic2018", lambda where: (where / "prepared.json").write_text("[]"), "no readable prepared.json"),
        ("msld", lambda where: (where / "stranger.txt").write_text(""), "stranger.txt has changed"),
    ):
        data_dir = tmp_path / "spoiled"
        shutil.copytree(prepared, data_dir)
        where = next(data_dir.glob(f"{source}/*/1.1.0"))
        spoil(where)
        sentence = refusal(folders, data_dir, **options)
        assert re.search(words, sentence) and f"delete {where} to prepare {source} again" in sentence
        shutil.rmtree(where)  # the way out
        assert load(folders, data_dir, **options).digest() == first.digest()
        shutil.rmtree(data_dir)

    other = copy("msld")
    put(next(other.rglob("fold1/*/*/MKP_17_01.jpg")), side=50)
    sentence = refusal(folders | {"msld": other}, prepared, **options)
    assert "not made from the files" in sentence and "another data_dir" in sentence


def flip(path):
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_source_without_one_usable_image(tmp_path):
    (tmp_path / "clinic/normal").mkdir(parents=True)
    (tmp_path / "clinic/normal/1.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"^none of the images of clinical .* such as normal/1\.jpg \(text"):
        load_clinical(tmp_path / "clinic", data_dir=tmp_path / "prepared", size=SIZE)
    put(tmp_path / "clinic/normal/1.jpg")
    assert len(load_clinical(tmp_path / "clinic", data_dir=tmp_path / "prepared", size=SIZE)) == 1


def test_counts_are_compared_with_those_of_the_paper():
    def with_counts(counts):
        labels = np.repeat(list(counts), list(counts.values()))
        names = np.array([f"x/{i}" for i in range(len(labels))])
        return Dataset(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, names, names, "x", "mpox")

    assert sum(PAPER_COUNTS.values()) == 220 + 1690 and len(PAPER_COUNTS) == 19
    assert count_differences(with_counts(PAPER_COUNTS)) == []
    counts = {**PAPER_COUNTS, "mpox": 284, "hfmd": 161, "others": 1}
    del counts["vasc"]
    assert count_differences(with_counts(counts)) == [
        "mpox: 284 images, the paper has 220.",
        "hfmd: 161 images, the paper has 60.",
        "vasc: 0 images, the paper has 100.",
        "others: 1 image of a class that the paper does not have.",
        "Other classes than mpox: 1,692 images in 18 classes, the paper has 1,690 in 18.",
    ]


def test_every_builder_says_where_its_data_come_from(joined):
    from mim_jax.data.sources.tfds import ABOUT, BUILDERS

    for name, builder_class in BUILDERS.items():
        assert builder_class.name == name
        assert ABOUT[name]["instructions"] == builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS
        for key in ("licence", "citation", "instructions"):
            assert len(ABOUT[name][key]) > 40
    written = json.loads(next(joined[0].glob("msld/*/1.1.0/dataset_info.json")).read_text())
    assert "Mpox Skin Lesion Dataset" in written["description"] and written["fileFormat"] == "array_record"
    assert "10.1016/j.bspc.2024.106742" in written["citation"]
    assert "non-commercial" in json.dumps(written["redistributionInfo"])


def test_preparing_prints_nothing_and_needs_neither_network_nor_tensorflow(downloads, tmp_path):
    code = f"""
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("network")
socket.socket.connect = socket.getaddrinfo = refuse
from mim_jax.data.sources import load
assert "tensorflow_datasets" not in sys.modules
folders = {{"dermnet": {str(downloads / "dermnet")!r}}}
load.load_sources(folders, data_dir={str(tmp_path)!r}, size=16, per_class=1, positive="hpv")
assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
