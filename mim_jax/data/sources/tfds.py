"""The data sources of the paper as TFDS builders, prepared and read without TensorFlow.

Nothing is downloaded: the user accepts the licence, downloads and unpacks the data, and names the folder.
Each builder decodes the images it needs to one size and writes them as array_record. The entry point is
`mim_jax.data.sources.load`, which also verifies prepared data.

    builder = Msld(data_dir="prepared", config=Preparation(size=224, per_class=0))
    builder.download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(manual_dir="downloads/msld"),
    )
    images = builder.as_data_source("images")
"""

import dataclasses
import inspect
import os
import tomllib
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
ABOUT = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))


@dataclasses.dataclass(kw_only=True)
class Preparation(tfds.core.BuilderConfig):
    """Options of a preparation; its name contains all of them, so that each has its own folder."""

    name: str = dataclasses.field(init=False)
    size: int  # side of the square images, in pixels
    min_side: int = MIN_SIDE  # images with a shorter side, in pixels, are unusable
    per_class: int = 100  # images drawn from each class; 0 takes all
    seed: int = 0  # seed of the draw

    def __post_init__(self) -> None:
        drawn = f"{self.per_class}_of_seed_{self.seed}" if self.per_class else "all"
        self.name = f"{self.size}px_from_{self.min_side}px_{drawn}"


# This argument is public in TFDS, but mypy sees no types there.
class Source(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of the builders: one split, one decoder, and a list of unusable images.

    Features of an example: `image` uint8 `[size, size, 3]` RGB; `label`, `group` ("" = unknown) and `name`
    (path below the downloaded folder) as UTF-8 text, with other bytes escaped.
    """

    VERSION = tfds.core.Version("1.1.0")  # changes with the decoder: older preparations are not read
    RELEASE_NOTES = {"1.1.0": "Corrects PNG and TIFF layouts that were decoded wrongly."}  # noqa: RUF012

    on_image: Callable[[], None] | None = None  # called after each image, usable or not
    unusable: list[tuple[str, str]]  # (name, reason); filled by the preparation

    def __init_subclass__(cls, **options: Any):
        """Set the instructions, which TFDS requires in the class, from sources.toml."""
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = ABOUT[cls.__name__.lower()]["instructions"]
        super().__init_subclass__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        size, about = self.builder_config.size, ABOUT[self.name]
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
            homepage=about["homepage"],
            license=about["licence"],
            citation=about["citation"],
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {SPLIT: self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Draw the wanted number from each class; an unusable image is replaced by the next."""
        used, self.unusable = 0, []
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

    # TFDS writes to standard output here; a library should not.
    def _log_download_bytes(self) -> None:
        pass

    _log_download_done = _log_download_bytes


class Msld(Source):
    """Mpox Skin Lesion Dataset, version 1.0 or 2.0: all images of the classes that the paper uses.

    Version 2.0, checked by a dermatologist: 755 images of 541 patients; used are 284 of mpox, 75 of
    chickenpox, 55 of measles and 161 of hand, foot and mouth disease. Version 1.0: 102 of mpox, and 126 of
    chickenpox and measles together as class `others`. The paper excluded images by eye and does not say
    which. Groups: patients, from file names such as `MKP_17_01`.
    """


class Isic2018(Source):
    """ISIC 2018 challenge, training images of task 3: 10,015 dermoscopic images of seven classes.

    They are the data set HAM10000. By default 100 images are drawn from each class, as in the paper, which
    does not list its images. Groups: lesions, from the table of lesion groupings.
    """


class Dermnet(Source):
    """Dermnet as published on Kaggle: photographs of 23 disease groups, of which the paper uses eight.

    By default 100 images are drawn from each class, from train and test combined (19,559 images in all);
    the paper chose its 100 by eye and does not say which. The folders are broad teaching categories, not
    confirmed diagnoses. Patients are unknown, so each image is a group of its own.
    """


class Clinical(Source):
    """Your own clinical set: all photographs, none of mpox, in one folder per class, at any depth.

    The paper uses 60 photographs of hospital patients and 40 of normal skin, which are not public. Each
    image is a group of its own.
    """


# Data source -> its builder; TFDS makes the names, which are those of `folders.LAYOUTS`.
BUILDERS: dict[str, type[Source]] = {one.name: one for one in (Msld, Isic2018, Dermnet, Clinical)}
