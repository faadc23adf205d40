"""The input gate: is this picture a usable photograph of skin, and if not, what helps?

A network trained on one kind of image gives a score to anything, and a blurred or dark picture is easy to
inpaint, so it resembles its inpainting whatever it shows. Pictures that cannot be judged are therefore
refused before they are scored: `mim_jax.data.images.load_image` and `decode_image` take a `Gate`.

The measures are taken on the central square, scaled to 128x128 (smaller images are not scaled), whatever the
input size of the network. A large JPEG is decoded once, at a reduced size that suits both the network and
this square, which changes the measures by a few percent. They are sums over pixels, so that a web page can
compute the same values. With luma
Y = (299 R + 587 G + 114 B) / 1000 in 0 to 255 (ITU-R BT.601) and H pixels a side:

    lit        share of pixels with Y > 60
    burnt      share of pixels with R, G, B >= 250 in the middle: rows and columns H // 4 to H - H // 4 - 1
    sharpness  var(D) / (var(Y) + 1), D = sum of Y over a pixel's four neighbours minus 4 Y, mirrored at the
               border without repeating it; population variances
    skin       share of pixels with 77 <= Cb <= 140 and 131 <= Cr <= 185, as JFIF defines them:
               Cb = 128 - 0.168736 R - 0.331264 G + 0.5 B, Cr = 128 + 0.5 R - 0.418688 G - 0.081312 B
    flat       share that equal both neighbours in R, G and B, of the pixels with a right and a lower one

The variance of the Laplacian measures focus (Pech-Pacheco et al., "Diatom autofocusing in brightfield
microscopy", ICPR 2000); divided by the variance of luma it depends neither on exposure nor on skin tone. For
the same reason `lit` asks whether any part of the picture is bright, not whether it is bright on average.
The skin colours are those of Chai and Ngan, "Face segmentation using skin-color map in videophone
applications", IEEE Transactions on Circuits and Systems for Video Technology, 1999 (77 to 127 and 133 to
173), widened for inflamed skin and for the violet of dermoscopy.

The limits were chosen to refuse at most one in fifty of each class and of each estimated skin tone in public
photographs of skin, without using any network's scores; `benchmarks/gate.py` counts what they refuse.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from mim_jax.data.dataset import Dataset

SIDE = 128  # side of the measured square, in pixels

LIGHT = 60  # luma, of 255; brighter pixels are lit
LEAST_LIT = 0.05
WHITE = 250  # of 255; a pixel without a darker channel is burnt out
MOST_BURNT = 0.6
LEAST_SHARPNESS = 0.01
CB, CR = (77, 140), (131, 185)
LEAST_SKIN = 0.15
# Above both limits: computer graphics. Each alone is common in photographs.
MOST_FLAT, MOST_FLAT_SHARPNESS = 0.1, 1.0


@dataclass(frozen=True)
class Gate:
    """Checks of the input gate; False turns one off."""

    too_small: bool = True
    several_frames: bool = True  # False = use the first frame
    screenshot: bool = True
    underexposed: bool = True
    overexposed: bool = True
    blurred: bool = True
    not_skin: bool = True


MODES = ("list", "refuse", "off")


@dataclass(frozen=True)
class Measures:
    """Measures of the gate; formulas in the module's docstring. Shares are in [0, 1]."""

    lit: float
    burnt: float
    sharpness: float
    skin: float
    flat: float


def measure(image: np.ndarray) -> Measures:
    """Measure a square image, uint8 `[S, S, 3]` RGB, S at least 4."""
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 [S, S, 3], got {image.dtype} {list(image.shape)}")
    if image.shape[0] < 4:
        raise ValueError(f"image must have at least 4x4 pixels, got {image.shape[0]}x{image.shape[1]}")
    if image.shape[0] > SIDE:
        image = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 0))  # NumPy reads whole planes faster
    red, green, blue = planes.astype(np.float64)
    luma = (299 * red + 587 * green + 114 * blue) / 1000
    cb = 128 - 0.168736 * red - 0.331264 * green + 0.5 * blue
    cr = 128 + 0.5 * red - 0.418688 * green - 0.081312 * blue
    edge = len(image) // 4
    middle = planes[:, edge : len(image) - edge, edge : len(image) - edge]
    here = planes[:, :-1, :-1]
    flat = ((here == planes[:, :-1, 1:]) & (here == planes[:, 1:, :-1])).all(axis=0)
    return Measures(
        lit=float(np.mean(luma > LIGHT)),
        burnt=float(np.mean(middle.min(axis=0) >= WHITE)),
        sharpness=float(_laplacian(luma).var() / (luma.var() + 1)),
        skin=float(np.mean((cb >= CB[0]) & (cb <= CB[1]) & (cr >= CR[0]) & (cr <= CR[1]))),
        flat=float(flat.mean()),
    )


def find_faults(image: np.ndarray, gate: Gate) -> dict[str, str]:
    """Find the faults of the square to be scored, uint8 `[S, S, 3]`: name of the check -> a sentence.

    >>> list(find_faults(np.zeros((128, 128, 3), np.uint8), Gate()))
    ['underexposed', 'blurred', 'not_skin']
    """
    found = measure(image)
    sharp = f"{found.sharpness:.2g}"
    faults = {
        "screenshot": (
            found.flat > MOST_FLAT and found.sharpness > MOST_FLAT_SHARPNESS,
            f"like a screenshot or a drawing: {found.flat:.0%} of its pixels equal their neighbours "
            f"(at most {MOST_FLAT:.0%} if the sharpness, here {sharp}, is above {MOST_FLAT_SHARPNESS:g}); "
            "use the photograph itself",
        ),
        "underexposed": (
            found.lit < LEAST_LIT,
            f"too dark: {found.lit:.1%} of it is brighter than {LIGHT} of 255 (at least {LEAST_LIT:.0%} is "
            "needed); take it again in more light",
        ),
        "overexposed": (
            found.burnt > MOST_BURNT,
            f"overexposed: {found.burnt:.0%} of its middle is white, {WHITE} of 255 or more (at most "
            f"{MOST_BURNT:.0%} is allowed); take it again without flash or direct sun",
        ),
        "blurred": (
            found.sharpness < LEAST_SHARPNESS,
            f"blurred: its sharpness is {sharp} (at least {LEAST_SHARPNESS:g} is needed); hold the camera "
            "still, let it focus, and take it again",
        ),
        "not_skin": (
            found.skin < LEAST_SKIN,
            f"not like skin: {found.skin:.0%} of it has the colours of skin (at least {LEAST_SKIN:.0%} is "
            "needed); fill the picture with skin, in white light and in colour",
        ),
    }
    return {name: words for name, (wrong, words) in faults.items() if wrong and getattr(gate, name)}


def screen(dataset: Dataset, gate: Gate, mode: str, *, strict: bool = False) -> Dataset:
    """Run the gate on the images of a data set; by default only list those that fail.

    Training sets may contain unusual images on purpose, and a gate that changed the training set would
    change results. Image size and frames are checked by the image loader.

    Mode "list" lists images that fail in `doubtful`; "refuse" moves them to `unusable`, and raises a
    ValueError if `strict` or if no image of the positive class passes; "off" does nothing.
    """
    if mode == "off":
        return dataset
    faults = [find_faults(image, gate) for image in dataset.images]
    found = tuple(
        (str(name), "; ".join(each.values()))
        for name, each in zip(dataset.names, faults, strict=True)
        if each
    )
    if mode == "list" or not found:
        return replace(dataset, doubtful=found)
    if strict:
        listed = "; ".join(f"{name}: {reason}" for name, reason in found[:3])
        raise ValueError(
            f"{len(found)} images do not pass the input gate ({listed}): remove them, or only list them with "
            "--config.data.gate.training=list"
        )
    kept = dataset.select(np.array([not each for each in faults], dtype=bool))
    if not kept.positives.size:
        raise ValueError(
            f"the input gate refuses every image of {dataset.positive!r} (the first is {found[0][0]}: "
            f"{found[0][1]}): only list them with --config.data.gate.training=list"
        )
    return replace(kept, unusable=tuple(sorted((*dataset.unusable, *found))))


def _laplacian(plane: np.ndarray) -> np.ndarray:
    """Sum of the four neighbours minus four times the pixel, `[H, W]`, mirrored as in `abcb|abc`."""
    wide = np.pad(plane, 1, mode="reflect")
    return wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * plane
