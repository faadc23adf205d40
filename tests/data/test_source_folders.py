"""Layouts of downloaded folders: what is read, and what is refused in one sentence."""

import re
import shutil
import unicodedata

import pytest

from mim_jax.data.sources.folders import fingerprint, read_layout
from mim_jax.data.sources.load import count_differences, load_clinical
from tests.data.downloads import SIZE, litter, load, make_msld_v1, put, refusal


def test_msld_v1_and_names_without_a_patient(tmp_path):
    dataset = load({"msld": make_msld_v1(tmp_path / "v1")}, tmp_path / "prepared")
    assert dataset.class_counts() == {"mpox": 3, "others": 2} and dataset.source == "MSLD v1.0"
    groups = dict(zip(dataset.names, dataset.groups, strict=True))
    stem = "msld/Original Images/Original Images/"
    assert groups[f"{stem}Monkey Pox/M01_02.jpg"] == groups[f"{stem}Monkey Pox/M01_01.jpg"] == "msld/mpox/1"
    stray = f"{stem}Others/strange name.jpg"
    assert groups[stray] == stray and [name for name, _ in dataset.group_problems] == [stray]
    assert any(sentence.startswith("others: 2 images of a class") for sentence in count_differences(dataset))


def test_what_is_missing_from_a_download_is_said(copy, tmp_path):
    out = tmp_path / "prepared"
    assert "does not exist" in refusal({"msld": tmp_path / "nowhere"}, out)
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal({"msld": tmp_path / "file"}, out)
    (tmp_path / "empty").mkdir()
    for source, words in {
        "msld": "neither",
        "isic2018": "must hold one file ISIC2018_Task3_Training_GroundTruth.csv",
        "dermnet": "train/bullous",
    }.items():
        assert words in refusal({source: tmp_path / "empty"}, out)
    assert "unknown data source 'mnist'" in refusal({"mnist": tmp_path}, out)
    assert "no data source is given" in refusal({}, out)

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
        (TRUTH, "ISIC_0024306,1.0", "ISIC_0024306,0.0", "the row of 'ISIC_0024306' does not"),
        (TRUTH, "ISIC_0024306,1.0", "ISIC_0024306,mel", "the row of 'ISIC_0024306' does not"),
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
        assert dataset.unusable == (("clinical/stray.png", "not in a class folder"),)
        assert ("clinical/__MACOSX", "a hidden or system folder; files in it: 1") in (dataset.passed_over)
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


def test_clinical_classes_that_are_links_are_the_reason_given(tmp_path):
    put(tmp_path / "elsewhere" / "1.jpg")
    clinic = tmp_path / "clinic"
    clinic.mkdir()
    (clinic / "hospital").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):  # alone, then beside a class that is a folder
        with pytest.raises(ValueError, match=r"not read: hospital \(a link to a folder,"):
            load_clinical(clinic, data_dir=tmp_path / "prepared", size=SIZE)
        put(clinic / "normal" / "1.jpg")


def test_a_clinical_class_in_decomposed_accents_keeps_its_name(tmp_path):
    marks = {}
    for form in ("NFC", "NFD"):
        put(tmp_path / form / unicodedata.normalize(form, "Läsion é/ö.jpg"), seed=1)
        dataset = load_clinical(tmp_path / form, data_dir=tmp_path / f"prepared {form}", size=SIZE)
        assert dataset.class_counts() == {"läsion_é": 1}
        folder = read_layout("clinical", tmp_path / form)
        marks[form] = dataset.digest(), fingerprint(tmp_path / form, folder.entries)
    assert marks["NFC"] == marks["NFD"]


def test_two_files_of_one_image_are_named(copy, tmp_path):
    isic, msld = copy("isic2018"), copy("msld")
    put(isic / "ISIC2018_Task3_Training_Input" / "thumbnails" / "isic_0024306.JPG")
    said = refusal({"isic2018": isic}, tmp_path / "prepared", positive="nv")
    assert re.search(
        r"two files of one image, \S*Input/ISIC_0024306.jpg and \S*thumbnails/isic_0024306.JPG", said
    )
    shutil.rmtree(isic / "ISIC2018_Task3_Training_Input" / "thumbnails")
    table = isic / "ISIC2018_Task3_Training_LesionGroupings.csv"
    table.write_text(f"{table.read_text('utf-8-sig')}\nISIC_0024306,HAM_9,")
    assert "names an image twice" in refusal({"isic2018": isic}, tmp_path / "prepared", positive="nv")

    put(next(msld.rglob("fold1/*/Monkeypox/MKP_17_01.jpg")).with_suffix(".png"))
    said = refusal({"msld": msld}, tmp_path / "prepared")
    assert re.search(r"one image twice, \S.*MKP_17_01.jpg and \S.*MKP_17_01.png, in", said)
