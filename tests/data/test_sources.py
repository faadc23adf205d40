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

SIZE = 32
MSLD = ("Monkeypox", "Chickenpox", "Measles", "HFMD", "Cowpox", "Healthy")
CODES = dict(zip(MSLD, ("MKP", "CHP", "MSL", "HFMD", "CWP", "HEALTHY"), strict=True))
DERMNET = {
    "Bullous Disease Photos": "bullous",
    "Cellulitis Impetigo and other Bacterial Infections": "bacterial_infection",
    "Eczema Photos": "eczema",
    "Herpes HPV and other STDs Photos": "hpv",
    "Urticaria Hives": "urticaria",
    "Vascular Tumors": "vascular_tumor",
    "Vasculitis Photos": "vasculitis",
    "Warts Molluscum and other Viral Infections": "viral_infection",
    "Melanoma Skin Cancer Nevi and Moles": None,
    "Psoriasis pictures Lichen Planus and related diseases": None,
}
ISIC = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def put(path, seed=None, side=36):
    """A noisy picture of its own for each file name; Pillow cannot know every suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list(path.name.encode()) if seed is None else seed
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix.lower() == ".png" else "JPEG")
    return path


def litter(folder):
    """What systems leave behind in every folder."""
    for name in ("Thumbs.db", ".DS_Store", "._1.jpg"):
        (folder / name).write_bytes(b"no image")
    put(folder / "__MACOSX" / "x.jpg")


def make_msld_v2(root):
    """Three images of two patients a class; each fold holds all of them, as the shipped ones do."""
    for fold in range(1, 6):
        for title in MSLD:
            names = [f"{CODES[title]}_{n}" for n in ("17_01.jpg", "17_02.JPG", "03_01.jfif")]
            for i, name in enumerate(names):
                part = ("Train", "Valid", "Test")[(i + fold) % 3]
                name = name.lower() if fold == 4 else name
                put(root / "Original Images/Original Images/FOLDS" / f"fold{fold}" / part / title / name)
    augmented = root / "Augmented Images/FOLDS_AUG/fold1_AUG/Train/Monkeypox_Augmented/MKP_17_01_0.jpg"
    put(augmented)
    litter(root / "Original Images")
    return root


def make_msld_v1(root):
    for name in ("M01_01.jpg", "M01_02.jpg", "M02_01.jpg"):
        put(root / "Original Images/Original Images/Monkey Pox" / name)
    for name in ("NM01_01.jpg", "strange name.jpg"):
        put(root / "Original Images/Original Images/Others" / name)
    put(root / "Fold1/Fold1/Fold1/Train/Monkeypox/M01_01_00.jpg")
    return root


def make_isic(root, per_class=4):
    """Two images of each lesion; the answers beside the images, as unpacked."""
    truth, lesions = [",".join(("image", *ISIC))], ["image,lesion_id,diagnosis_confirm_type"]
    for c in range(7):
        for i in range(per_class):
            name = f"ISIC_{24306 + 100 * c + i:07}"
            put(root / "ISIC2018_Task3_Training_Input" / f"{name}.jpg")
            truth.append(",".join([name, *(f"{float(c == k)}" for k in range(7))]))
            lesions.append(f"{name},HAM_{c}{i // 2:06},histopathology")
    put(root / "ISIC2018_Task3_Test_Input" / "ISIC_0099999.jpg")
    answers = root / "ISIC2018_Task3_Training_GroundTruth"
    answers.mkdir()
    (answers / "ISIC2018_Task3_Training_GroundTruth.csv").write_text("\n".join(truth))
    (root / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text("\n".join(lesions), "utf-8-sig")
    litter(root / "ISIC2018_Task3_Training_Input")
    return root


def make_dermnet(root, train=2):
    for title in DERMNET:
        slug = title.split()[0].lower()
        for i in range(train):
            put(root / "train" / title / f"{slug}-{i} (1).JPG")
        put(root / "test" / title / f"{slug}-0.jpeg")
    litter(root / "train")
    return root


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Each source as downloaded; tests that spoil one take a copy."""
    root = tmp_path_factory.mktemp("downloads")
    make_msld_v2(root / "msld")
    make_isic(root / "isic2018")
    make_dermnet(root / "dermnet")
    return root


@pytest.fixture
def copy(downloads, tmp_path):
    def take(source):
        return shutil.copytree(downloads / source, tmp_path / source)

    return take


def load(folders, data_dir, **options):
    return load_sources(folders, data_dir=data_dir, **({"size": SIZE, "per_class": 0} | options))


def refusal(folders, data_dir, **options):
    """The one sentence with which these folders are refused."""
    with pytest.raises(ValueError) as error:
        load(folders, data_dir, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def joined(downloads, tmp_path_factory):
    """All three sources, 2 a class, prepared, then read: (data_dir, folders, both data sets, calls)."""
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
    # Every image is the one that its name says, decoded as the project decodes.
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
    assert (tmp_path / "isic2018/224px_from_32px_100_of_seed_0/1.0.0").is_dir()


def test_the_draw_follows_the_seed_and_moves_no_other_class(downloads, tmp_path, copy):
    def drawn(folder, seed, data_dir):
        dataset = load({"isic2018": folder}, data_dir, per_class=2, seed=seed, positive="nv")
        return set(dataset.names)

    draws = [drawn(downloads / "isic2018", seed, tmp_path / "a") for seed in range(3)]
    assert len({tuple(sorted(names)) for names in draws}) == 3
    assert draws[0] == drawn(downloads / "isic2018", 0, tmp_path / "b")
    # A class with one image more draws anew, the others do not.
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


def test_msld_v1_and_names_without_a_patient(tmp_path):
    dataset = load({"msld": make_msld_v1(tmp_path / "v1")}, tmp_path / "prepared")
    assert dataset.class_counts() == {"mpox": 3, "others": 2} and dataset.source == "MSLD v1.0"
    groups = dict(zip(dataset.names, dataset.groups, strict=True))
    stem = "msld/Original Images/Original Images/"
    assert groups[f"{stem}Monkey Pox/M01_02.jpg"] == groups[f"{stem}Monkey Pox/M01_01.jpg"] == "msld/mpox/1"
    stray = f"{stem}Others/strange name.jpg"
    assert groups[stray] == stray and [name for name, _ in dataset.group_problems] == [stray]
    assert any(sentence.startswith("others: 2 images of a class") for sentence in count_differences(dataset))


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
    assert whole.class_counts()["urticaria"] == 4  # the decoder takes an image of one colour


def test_what_is_missing_from_a_download_is_said(copy, tmp_path):
    out = tmp_path / "prepared"
    assert "does not exist" in refusal({"msld": tmp_path / "nowhere"}, out)
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal({"msld": tmp_path / "file"}, out)
    (tmp_path / "empty").mkdir()
    for source, words in {
        "msld": "neither",
        "isic2018": "GroundTruth.csv once",
        "dermnet": "train/bullous",
    }.items():
        assert words in refusal({source: tmp_path / "empty"}, out)
    assert "unknown data source 'mnist'" in refusal({"mnist": tmp_path}, out)
    assert "no data source is named" in refusal({}, out)

    msld = copy("msld")
    shutil.rmtree(msld / "Original Images/Original Images/FOLDS/fold4/Test")
    assert "no images in fold4/Test;" in refusal({"msld": msld}, out)
    for path in list(msld.rglob("Measles")):
        shutil.rmtree(path)
    put(msld / "Original Images/FOLDS/fold4/Test/Cowpox/CWP_17_01.jpg")
    assert "no images of measles" in refusal({"msld": msld}, out)
    make_msld_v1(msld)
    assert "versions 1.0 and 2.0" in refusal({"msld": msld}, out)

    dermnet = copy("dermnet")
    shutil.rmtree(dermnet / "test/Vascular Tumors")
    assert "no images in test/vascular_tumor (" in refusal({"dermnet": dermnet}, out)
    assert not out.exists()


def test_one_image_in_two_classes_is_refused(copy, tmp_path):
    folder = copy("msld")
    put(folder / "Original Images/Original Images/FOLDS/fold5/Test/Measles/MKP_17_01.jpg")
    assert "one image in two classes" in refusal({"msld": folder}, tmp_path / "prepared")


TRUTH = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
LESIONS = "ISIC2018_Task3_Training_LesionGroupings.csv"


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (TRUTH, "VASC\n", "SCC\n", "lacks the column 'vasc'"),
        (TRUTH, r"VASC\n(.*)\n", r"VASC,UNK\n\1,0\n", "unknown label 'UNK'"),
        (TRUTH, "ISIC_0024306,1.0", "ISIC_0024306,0.0", "'ISIC_0024306' has not"),
        (TRUTH, "ISIC_0024306,1.0", "ISIC_0024306,mel", "'ISIC_0024306' has not"),
        (TRUTH, "ISIC_0024306", "ISIC_7654321", "1 images that are not below .* such as ISIC_7654321"),
        (TRUTH, "ISIC_0024306", "ISIC_0024307", "1 images twice"),
        (TRUTH, "image", "picture", "lacks the column 'image'"),
        (TRUTH, r"(?s)\n.*", "", "has no rows"),
        (TRUTH, r"(?s)^.*", "\0", "(lacks the column|cannot be read)"),
        (LESIONS, "ISIC_0024306,.*\n", "", "no lesion for 1 images .* such as ISIC_0024306"),
        (LESIONS, "lesion_id", "lesion", "lacks the column 'lesion_id'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(copy, tmp_path, file, old, new, words):
    folder = copy("isic2018")
    text, changed = re.subn(old, new, (folder / file).read_text("utf-8-sig"), count=1)
    assert changed
    (folder / file).write_text(text)
    assert re.search(words, refusal({"isic2018": folder}, tmp_path / "prepared", positive="nv"))


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
        ("msld", lambda where: flip(next(where.glob("*array_record*"))), "array_record-.* is not as it was"),
        ("dermnet", lambda where: (where / "dataset_info.json").write_text("{"), "dataset_info.json is not"),
        ("isic2018", lambda where: (where / "prepared.json").unlink(), "no readable prepared.json"),
        ("isic2018", lambda where: (where / "prepared.json").write_text("[]"), "no readable prepared.json"),
        ("msld", lambda where: (where / "stranger.txt").write_text(""), "stranger.txt is not"),
    ):
        data_dir = tmp_path / "spoiled"
        shutil.copytree(prepared, data_dir)
        where = next(data_dir.glob(f"{source}/*/1.0.0"))
        spoil(where)
        sentence = refusal(folders, data_dir, **options)
        assert re.search(words, sentence) and f"delete {where} to prepare {source} again" in sentence
        shutil.rmtree(where)  # the way out
        assert load(folders, data_dir, **options).digest() == first.digest()
        shutil.rmtree(data_dir)

    other = copy("msld")
    put(next(other.rglob("fold1/*/*/MKP_17_01.jpg")), side=50)
    sentence = refusal(folders | {"msld": other}, prepared, **options)
    assert "made from other files than" in sentence and "another data_dir" in sentence


def flip(path):
    """One bit of one pixel."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_the_clinical_set(tmp_path):
    clinic = tmp_path / "clinic"
    for i in range(3):
        put(clinic / "Hospital" / "ward 2" / f"{i}.JPG")
    put(clinic / "normal" / "a b.jfif")
    put(clinic / "stray.png")
    litter(clinic)
    for _ in range(2):
        dataset = load_clinical(clinic, data_dir=tmp_path / "prepared", size=SIZE)
        assert dataset.class_counts() == {"hospital": 3, "normal": 1} and not dataset.positives.size
        assert dataset.unusable == (("clinical/stray.png", "not in the folder of a class"),)
        assert len(set(dataset.groups)) == 4


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "holds no negatives"),
        (["x.jpg"], "holds no negatives"),
        (["Monkey Pox/x.jpg", "normal/x.jpg"], "has a class 'monkey_pox': it must hold negatives only"),
        (["mpox/x.jpg"], "must hold negatives only"),
        (["Normal/x.jpg", "normal/y.jpg"], "'normal' twice, as Normal and normal"),
        (["normal/x.jpg", "hospital/notes.txt"], "no images in 'hospital'"),
    ],
)
def test_clinical_folders_that_are_refused(tmp_path, names, words):
    (tmp_path / "clinic").mkdir()
    for name in names:
        put(tmp_path / "clinic" / name)
    with pytest.raises(ValueError, match=words):
        load_clinical(tmp_path / "clinic", data_dir=tmp_path / "prepared", size=SIZE)


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
    from mim_jax.data.sources.tfds import BUILDERS

    for name, builder_class in BUILDERS.items():
        assert builder_class.name == name
        for text in (
            builder_class.LICENCE,
            builder_class.CITATION,
            builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS,
        ):
            assert len(text) > 40
    written = json.loads(next(joined[0].glob("msld/*/1.0.0/dataset_info.json")).read_text())
    assert "Mpox Skin Lesion Dataset" in written["description"] and written["fileFormat"] == "array_record"
    assert "10.1016/j.bspc.2024.106742" in written["citation"]
    assert "not for commercial use" in json.dumps(written["redistributionInfo"])


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
