"""Small files in the real layouts, names and formats of the paper's data sources, and how tests load them."""

import numpy as np
import pytest
from PIL import Image

from mim_jax.data.sources.load import load_sources

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
    """Write a noise picture seeded by its name; the format is given, as Pillow does not know every suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list(path.name.encode()) if seed is None else seed
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix.lower() == ".png" else "JPEG")
    return path


def litter(folder):
    """Add the files that operating systems leave in a folder."""
    for name in ("Thumbs.db", ".DS_Store", "._1.jpg"):
        (folder / name).write_bytes(b"no image")
    put(folder / "__MACOSX" / "x.jpg")


def make_msld_v2(root):
    """Make three images of two patients per class; each fold holds all of them, as in the real download."""
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
    """Make two images of each lesion, with the ground truth beside the images, as unpacked."""
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


def load(folders, data_dir, **options):
    return load_sources(folders, data_dir=data_dir, **({"size": SIZE, "per_class": 0} | options))


def refusal(folders, data_dir, **options):
    """The one-line error that refuses these folders."""
    with pytest.raises(ValueError) as error:
        load(folders, data_dir, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
