"""Procedural skin lesions: the embedded default data, so that everything runs without downloads.

The class structure, names and counts are those of the MIM paper: one training morphology called `mpox`
(umbilicated, firm, round papules and pustules) and eighteen others, from rashes that resemble it to
dermoscopy. The pictures are drawn from dermatological descriptions. They exercise the code; results on them
say nothing about any disease.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from mim_jax.data.synthetic.dermoscopy import DERMOSCOPED, dermoscope, dermoscoped
from mim_jax.data.synthetic.photographs import PHOTOGRAPHED
from mim_jax.data.synthetic.skin import bare_skin, photograph, photographed

CLASS_GROUPS: dict[str, tuple[str, ...]] = {
    "training": ("mpox",),
    "pox_like": ("chickenpox", "measles", "hfmd"),
    "photograph": (
        "bacterial_infection",
        "bullous",
        "eczema",
        "hpv",
        "urticaria",
        "vascular_tumor",
        "vasculitis",
        "viral_infection",
    ),
    "dermoscopy": ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
}

PAPER_COUNTS: dict[str, int] = {
    "mpox": 220,
    "chickenpox": 75,
    "measles": 55,
    "hfmd": 60,
    **dict.fromkeys(CLASS_GROUPS["photograph"] + CLASS_GROUPS["dermoscopy"], 100),
}

_RECIPES = PHOTOGRAPHED | DERMOSCOPED

# Images of each of ten patients, reshuffled for every ten. Real collections average about 1.7 as well.
_IMAGES_PER_PATIENT = (1, 2, 1, 3, 1, 2, 2, 1, 3, 1)


def render(label: str, index: int, *, size: int, seed: int = 0) -> np.ndarray:
    """Draw one image of a class, uint8 RGB [size, size, 3].

    The scene depends only on (seed, label, index) and is the same at every size.

    >>> render("mpox", 0, size=32).shape
    (32, 32, 3)
    """
    if label not in _RECIPES:
        raise ValueError(f"unknown lesion class {label!r}; the known ones are {', '.join(_RECIPES)}.")
    if size < 16:
        raise ValueError(f"size is {size}; procedural images need at least 16 pixels a side.")
    if index < 0 or seed < 0:
        raise ValueError(f"index is {index} and seed is {seed}; neither may be negative.")
    number = _patient(label, index, seed)
    close = label in DERMOSCOPED
    patient = (dermoscoped if close else photographed)(_generator(seed, label, "patient", number))
    rng = _generator(seed, label, "image", index)
    # A photographer steps back from a rash and close to a single spot, about as often in every class.
    field_mm = 20.0 if close else float(np.exp(rng.uniform(np.log(28), np.log(120))))
    canvas = bare_skin(rng, patient, size, field_mm=field_mm, close=close)
    _RECIPES[label](rng, canvas)
    if close:
        return dermoscope(rng, canvas)
    return photograph(rng, canvas, backdrop=bool(rng.random() < 0.22))


def lesion_images(
    counts: Mapping[str, int], *, size: int, seed: int = 0
) -> tuple[np.ndarray, list[str], list[str], list[str]]:
    """Draw the first images of each class in `counts`, in the order of `counts`.

    Returns images uint8 [N, size, size, 3]; labels; groups such as "mpox/patient-0004", shared by the images
    of one patient, all with the same skin, light and camera; names such as "mpox/0007.png".
    """
    shots = [(label, index) for label, count in counts.items() for index in range(count)]
    images = np.empty((len(shots), size, size, 3), np.uint8)
    for row, (label, index) in enumerate(shots):
        images[row] = render(label, index, size=size, seed=seed)
    labels = [label for label, _ in shots]
    groups = [f"{label}/patient-{_patient(label, index, seed):04d}" for label, index in shots]
    names = [f"{label}/{index:04d}.png" for label, index in shots]
    return images, labels, groups, names


def quick_counts(positives: int, negatives: int) -> dict[str, int]:
    """Counts for a small set: at least one negative per class, distributed over classes as in the paper."""
    shares = {label: count for label, count in PAPER_COUNTS.items() if label != "mpox"}
    if positives < 1 or negatives < len(shares):
        raise ValueError(
            f"asked for {positives} positives and {negatives} negatives; "
            f"there must be at least 1 and {len(shares)}, one for each class."
        )
    # Largest remainder method: each class has one, and the rest is divided in proportion.
    total, spare = sum(shares.values()), negatives - len(shares)
    counts = {label: 1 + spare * share // total for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: -(spare * shares[label] % total))
    for label in by_remainder[: negatives - sum(counts.values())]:
        counts[label] += 1
    return {"mpox": positives, **counts}


def _generator(seed: int, label: str, stream: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{label}/{stream}".encode()), number])


def _patient(label: str, index: int, seed: int) -> int:
    """Patient number of an image, independent of how many images are drawn."""
    block, place = divmod(index, sum(_IMAGES_PER_PATIENT))
    sizes = _generator(seed, label, "block", block).permutation(_IMAGES_PER_PATIENT)
    return block * len(_IMAGES_PER_PATIENT) + int(np.searchsorted(np.cumsum(sizes), place, side="right"))
