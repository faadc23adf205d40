"""The data sources of the paper as TFDS builders, prepared and read without TensorFlow.

Nothing is downloaded: a person accepts the licence, downloads and unpacks, and names the folder. Each builder
decodes the images that it needs to one size and writes them as array_record. The way in is
`mim_jax.data.sources.load`, which also verifies what has been prepared.

    builder = Msld(data_dir="prepared", config=configuration(size=224, per_class=0))
    builder.download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(manual_dir="downloads/msld"),
    )
    images = builder.as_data_source("images")
"""

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mim_jax.data.dataset import printable
from mim_jax.data.images import MIN_SIDE, UnusableImage, load_image
from mim_jax.data.sources.folders import Entry, draw, read_layout

SPLIT = "images"


@dataclasses.dataclass(kw_only=True)
class Preparation(tfds.core.BuilderConfig):
    """Options of a preparation; `configuration` makes one, under a name of its own."""

    size: int  # side of the square images, in pixels
    min_side: int  # images with a shorter side, in pixels, are unusable
    per_class: int  # images drawn from each class; 0 takes all
    seed: int  # of the draw


def configuration(*, size: int, min_side: int = MIN_SIDE, per_class: int = 100, seed: int = 0) -> Preparation:
    """Make a preparation under a name that holds all of its options, so that each has a folder of its own."""
    drawn = f"{per_class}_of_seed_{seed}" if per_class else "all"
    return Preparation(
        name=f"{size}px_from_{min_side}px_{drawn}",
        size=size,
        min_side=min_side,
        per_class=per_class,
        seed=seed,
    )


# TFDS makes no secret of this argument, but mypy sees no types there.
class Source(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of the builders: one split, one decoder, and a list of unusable images.

    Features of an example: `image` uint8 `[size, size, 3]` RGB; `label`, `group` ("" = unknown) and `name`
    (path below the downloaded folder) as UTF-8 text, with other bytes escaped.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}  # noqa: RUF012 - TFDS reads it so

    HOMEPAGE: str
    LICENCE: str
    CITATION: str

    # Called after each image that was tried, from the thread that prepares.
    on_image: Callable[[], None] | None = None

    def __init__(self, *, config: Preparation, **options: Any):
        super().__init__(config=config, **options)
        self.unusable: list[tuple[str, str]] = []  # (name, reason) of images drawn, after the preparation

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.getdoc(type(self)),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(size, size, 3), dtype=np.uint8),
                    "label": tfds.features.Text(),
                    "group": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            homepage=self.HOMEPAGE,
            license=self.LICENCE,
            citation=self.CITATION,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {SPLIT: self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Draw the wanted number from each class; an unusable image is replaced by the next."""
        used = 0
        config = self.builder_config
        classes = draw(read_layout(self.name, folder).entries, seed=config.seed)

        def decode(entry: Entry) -> np.ndarray | UnusableImage:
            try:
                return load_image(folder / entry.name, size=config.size, min_side=config.min_side)
            except UnusableImage as error:
                return error

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for queue in classes.values():
                missing = config.per_class or len(queue)
                while missing and queue:
                    batch, queue = queue[:missing], queue[missing:]
                    for entry, image in zip(batch, pool.map(decode, batch), strict=True):
                        name = printable(entry.name)
                        if isinstance(image, UnusableImage):
                            self.unusable.append((name, image.reason))
                        else:
                            missing -= 1
                            used += 1
                            group = printable(entry.group)
                            label = printable(entry.label)
                            yield name, {"image": image, "label": label, "group": group, "name": name}
                        if self.on_image:
                            self.on_image()

        if not used:
            name, reason = self.unusable[0]
            raise ValueError(
                f"none of the images of {self.name} in {folder} can be used, such as {name} ({reason}): "
                "look at the files"
            )

    # TFDS writes to standard output here; a library does not.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


class Msld(Source):
    """Mpox Skin Lesion Dataset, version 1.0 or 2.0; all images of the classes that the paper takes, no draw.

    Version 2.0, checked by a dermatologist: 755 images of 541 patients, of which mpox 284, chickenpox 75,
    measles 55 and hand, foot and mouth disease 161 are taken. Version 1.0: 102 of mpox, 126 of chickenpox and
    measles together, class `others`. The paper left out images by eye and does not say which.
    Groups: patients, from file names such as `MKP_17_01`.
    """

    HOMEPAGE = "https://github.com/mHealthBuet/Mpox-Skin-Lesion-Dataset-v2"
    LICENCE = (
        "Creative Commons with attribution, not for commercial use, as the badge of the authors' "
        "repositories says without a version; the photographs were collected from the web, whose owners may"
        " set other terms. Read the terms where you download."
    )
    CITATION = (
        "S. N. Ali, M. T. Ahmed, T. Jahan, J. Paul, S. M. S. Sani, N. Noor, A. N. Asma, T. Hasan: A Web-"
        "based Mpox Skin Lesion Detection System Using State-of-the-art Deep Learning Models Considering "
        "Racial Diversity. Biomedical Signal Processing and Control 98, 106742, 2024. "
        "doi:10.1016/j.bspc.2024.106742. Version 1.0: S. N. Ali et al.: Monkeypox Skin Lesion Detection "
        "Using Deep Learning Models: A Feasibility Study. arXiv:2207.03342, 2022."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Version 2.0: https://www.kaggle.com/datasets/joydippaul/mpox-skin-lesion-dataset-version-20-msld-v20
      Original Images/FOLDS/fold1 ... fold5/Train, Valid, Test/Monkeypox, Chickenpox, .../MKP_17_01.jpg
      All five folds with their three parts must be there; an image is taken once, whatever folds hold it.
    Version 1.0: https://www.kaggle.com/datasets/nafin59/monkeypox-skin-lesion-dataset
      Original Images/Monkey Pox, Others/M01_01.jpg
    The augmented images are not used. Only one of the versions may be there: they share images.
    """


class Isic2018(Source):
    """ISIC 2018 challenge, training images of task 3: 10,015 of seven classes, seen through a dermatoscope.

    They are the data set HAM10000. By default 100 images are drawn from each class, as in the paper, which
    does not say which. Groups: lesions, from the table of groupings.
    """

    HOMEPAGE = "https://challenge.isic-archive.com/data/#2018"
    LICENCE = (
        "Creative Commons with attribution, not for commercial use (CC BY-NC 4.0 as reported by those who "
        "pass the images on; HAM10000 itself is under CC BY-NC-SA 4.0). Read the terms where you download."
    )
    CITATION = (
        "N. Codella et al.: Skin Lesion Analysis Toward Melanoma Detection 2018: A Challenge Hosted by the "
        "International Skin Imaging Collaboration (ISIC). arXiv:1902.03368, 2019. P. Tschandl, C. "
        "Rosendahl, H. Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic "
        "images of common pigmented skin lesions. Scientific Data 5, 180161, 2018. "
        "doi:10.1038/sdata.2018.161"
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    From https://challenge.isic-archive.com/data/#2018, task 3, unpacked into one folder at any depth:
      ISIC2018_Task3_Training_Input/ISIC_0024306.jpg ...
      ISIC2018_Task3_Training_GroundTruth.csv        image,MEL,NV,BCC,AKIEC,BKL,DF,VASC; one 1.0 a row
      ISIC2018_Task3_Training_LesionGroupings.csv    image,lesion_id,diagnosis_confirm_type
    Every image that the tables name must be there, with a lesion.
    """


class Dermnet(Source):
    """Dermnet as it lies on Kaggle: photographs of 23 groups of diseases, of which the paper takes eight.

    By default 100 images are drawn from each class, out of train and test together (19,559 images in all);
    the paper chose its 100 by eye and does not say which. The folders are broad teaching categories, not
    confirmed diagnoses. Which images show one patient is not known, so that each is a group of its own.
    """

    HOMEPAGE = "https://www.kaggle.com/datasets/shubhamgoel27/dermnet"
    LICENCE = (
        "CC BY-NC-ND 4.0 as reported of the Kaggle page; the images were taken from dermnet.com, and no "
        "consent of its owners or patients is documented. Read the terms where you download."
    )
    CITATION = (
        "Dermnet: image data for 23 categories of skin diseases. Kaggle, accessed by the paper in 2023."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    From https://www.kaggle.com/datasets/shubhamgoel27/dermnet, unpacked:
      train/Bullous Disease Photos/*.jpg   and the same folders in test/:
      Cellulitis Impetigo and other Bacterial Infections, Eczema Photos, Herpes HPV and other STDs Photos,
      Urticaria Hives, Vascular Tumors, Vasculitis Photos, Warts Molluscum and other Viral Infections
    Each of the eight must have images in train and in test; the other fifteen are not used.
    """


class Clinical(Source):
    """A clinical set of your own: photographs without mpox, one folder a class, at any depth; no draw.

    The paper has 60 of a hospital's patients and 40 of normal skin; they are not public. Each image is a
    group of its own.
    """

    HOMEPAGE = "https://arxiv.org/abs/2310.06318"
    LICENCE = "Yours to know: photographs of patients need their consent."
    CITATION = (
        "Y. Yue, Z. Li: Adversarial Masked Image Inpainting for Robust Detection of Mpox and Non-Mpox. "
        "arXiv:2310.06318, 2023, section 2.2."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Put the photographs into one folder a class, for example:
      hospital/*.jpg
      normal/*.jpg
    No class of mpox: the clinical test takes its mpox images from the test folds.
    """


# Data source -> its builder; the names are those of `folders.LAYOUTS` and of TFDS.
BUILDERS: dict[str, type[Source]] = {
    "msld": Msld,
    "isic2018": Isic2018,
    "dermnet": Dermnet,
    "clinical": Clinical,
}
