"""What the input gate refuses: of photographs of skin by class and skin tone, and of other pictures.

python -m benchmarks.gate --root=FOLDER        # one folder a class, as for training

Skin tones are estimated, from the individual typology angle ITA = arctan((L* - 50) / b*) of the median colour
of what is neither black nor white (Chardon, Cretois and Hourseau, "Skin colour typology and suntanning
pathways", International Journal of Cosmetic Science, 1991), with its six usual bands. Light, flash and
background bias the estimate. Pictures without skin are the sample photographs of scikit-image and
scikit-learn, whole and in quarters, and generated plots and text; worse photographs are the given ones,
blurred or wrongly exposed.
"""

import argparse
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from mim_jax.data import quality
from mim_jax.data.folder import list_images
from mim_jax.data.images import decode_image, load_image
from mim_jax.evaluate.controls import TONES, skin_tone

PANGRAM = "Sphinx of black quartz, judge my vow; pack my box with five dozen liquor jugs. "
CHECKS = ("screenshot", "underexposed", "overexposed", "blurred", "not_skin")


def blurred(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """Make a Gaussian blur of `sigma` pixels, for images of 128 pixels a side."""
    return lambda image: np.rint(gaussian_filter(image.astype(float), (sigma, sigma, 0))).astype(np.uint8)


def exposed(stops: float) -> Callable[[np.ndarray], np.ndarray]:
    """Make a change of exposure: `2**stops` times the light, by the sRGB transfer curve (IEC 61966-2-1)."""

    def change(image: np.ndarray) -> np.ndarray:
        value = image / 255
        light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        light = np.clip(light * 2.0**stops, 0, 1)
        value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        return np.rint(255 * value).astype(np.uint8)

    return change


def photographs() -> Iterator[Image.Image]:
    """Yield installed photographs and scans with little or no skin, and their quarters."""
    import skimage
    from sklearn.datasets import load_sample_images

    folder = Path(skimage.__file__).parent / "data"
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.[jp][pn]g"))]
    pictures += [Image.fromarray(image) for image in load_sample_images().images]
    for picture in pictures:
        yield picture
        width, height = picture.size
        side = min(width, height) // 2
        if side >= 64:
            for left, top in ((0, 0), (width - side, 0), (0, height - side), (width - side, height - side)):
                yield picture.crop((left, top, left + side, top + side))


def drawings() -> Iterator[Image.Image]:
    """Yield plots, and pages of text in several colours and sizes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rng = np.random.default_rng(0)
    for colors in ("viridis", "hot", "Reds"):
        for kind in range(4):
            figure = Figure(figsize=(4, 4), dpi=112)
            axes = figure.subplots()
            if kind == 0:
                axes.plot(rng.normal(size=(50, 3)).cumsum(axis=0))
            elif kind == 1:
                axes.bar(range(8), rng.random(8))
            elif kind == 2:
                axes.imshow(rng.random((8, 8)), cmap=colors)
            else:
                x, y = rng.normal(size=(2, 300))
                axes.scatter(x, y, c=rng.random(300), cmap=colors)
            axes.set_title(f"{colors} {kind}")
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    papers = (("white", "black"), ("black", "white"), ("#f4f0e8", "#333333"), ("#1e1e1e", "#d4d4d4"))
    for paper, ink in (*papers, ("#fdf6e3", "#586e75"), ("#ffe4d6", "#552211")):
        for size in (12, 20, 34):
            page = Image.new("RGB", (448, 448), paper)
            for line in range(448 // (size + 4)):
                text = (9 * PANGRAM)[40 * line % 400 :][:80]
                ImageDraw.Draw(page).text(
                    (8, 8 + line * (size + 4)), text, fill=ink, font=ImageFont.load_default(size)
                )
            yield page


def decoded(picture: Image.Image, format: str) -> np.ndarray:
    """Save a picture in a file format and decode it as the gate does."""
    file = io.BytesIO()
    picture.save(file, format)
    return decode_image(file.getvalue(), size=quality.SIDE)


def print_rows(rows: Mapping[str, Iterable[np.ndarray]]) -> None:
    """Print one line per group: number of images, number refused, and number refused by each check."""
    print("| | images | refused | | " + " | ".join(CHECKS) + " |")
    print("|---" * (4 + len(CHECKS)) + "|")
    for name, pictures in rows.items():
        faults = [quality.find_faults(picture, quality.Gate()) for picture in pictures]
        refused = sum(map(bool, faults))
        counts = Counter(check for fault in faults for check in fault)
        cells = [name, len(faults), refused, f"{refused / len(faults):.1%}", *(counts[c] for c in CHECKS)]
        print("| " + " | ".join(map(str, cells)) + " |")
    print()


def main() -> None:
    """Print three tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder with one folder per class")
    parser.add_argument(
        "--size", type=int, default=quality.SIDE, help="pixels a side to which images are reduced"
    )
    options = parser.parse_args()
    names = list_images(options.root).names
    images = np.stack([load_image(Path(options.root, name), size=options.size) for name in names])
    classes = np.array([name.split("/")[0] for name in names])
    tones = np.array([skin_tone(image) for image in images])
    rows = {name: images[classes == name] for name in np.unique(classes)}
    print_rows({**rows, "all": images})
    order = [name for name, _ in TONES] + ["very light", ""]
    print_rows({name or "no colour": images[tones == name] for name in order if name in tones})
    changes = {f"blurred by {sigma:g}": blurred(sigma) for sigma in (1, 1.5, 2, 3)}
    changes |= {f"exposed {stops:+d}": exposed(stops) for stops in (-5, -4, -3, -2, 2, 3, 4)}
    worse = {name: [change(image) for image in images] for name, change in changes.items()}
    formats = ("PNG", "JPEG")
    others = {
        f"{kind}, {format}": [decoded(picture, format) for picture in make()]
        for kind, make in (("photographs without skin", photographs), ("plots and text", drawings))
        for format in formats
    }
    print_rows(worse | others)


if __name__ == "__main__":
    main()
