"""Recipes for dermoscopy, and the dermatoscope: one large lesion in the middle of evenly lit fair skin."""

import numpy as np

from mim_jax.data.synthetic.fields import centres, falling, noise, ring, strokes
from mim_jax.data.synthetic.photographs import Recipe
from mim_jax.data.synthetic.skin import EVERYWHERE, Canvas, Patient, Window, exposed, honeycomb, lit

Disc = tuple[float, float, float]  # x, y, radius


def dermoscoped(rng: np.random.Generator) -> Patient:
    """Draw a patient under a dermatoscope: mostly fair skin, even light from the front, little grain."""
    return Patient(
        tone=float(np.clip(rng.normal(0.14, 0.07), 0.02, 0.45)),
        flush=rng.uniform(0.35, 1.0),
        azimuth=rng.uniform(0, 2 * np.pi),
        elevation=rng.uniform(3, 6),
        falloff=rng.uniform(0, 0.1),
        vignette=rng.uniform(0.05, 0.4),
        cast=np.exp(rng.normal(0, 1, 3) * [0.04, 0.03, 0.07]).astype(np.float32),
        exposure=rng.uniform(0.82, 1.02),
        contrast=rng.uniform(0, 0.3),
        blur=float(rng.choice([0.0, 0.002, 0.003])),
        chroma_blur=float(rng.choice([0.004, 0.007])),
        grain=rng.uniform(0.003, 0.01),
        hair=max(0.0, rng.normal(-0.1, 0.6)),
        freckles=0.0,
        lines=rng.uniform(0.1, 0.4),
        stage=0.0,
    )


def dermoscope(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Take the picture through a dermatoscope: gel bubbles, a ruler, the dark round field stop; uint8."""
    colour, size, axis = lit(canvas), canvas.size, centres(canvas.size)
    if rng.random() < 0.3:
        for _ in range(rng.integers(3, 25)):
            x, y = rng.random(2)
            where, rho = canvas.around(x, y, 0.004 + rng.gamma(1.5, 0.008), reach=1.6, wobble=0)
            colour[:, *where] += (
                0.16 * ring(rho, 1, 0.35) + 0.05 * falling(rho, 0.9, 0.2) - 0.12 * ring(rho, 1.3, 0.25)
            )
    if rng.random() < 0.2:
        colour *= 1 - 0.75 * _ruler(rng, size)
    if rng.random() < 0.35:
        radius = rng.uniform(0.5, 0.66)
        away = np.hypot(axis[None, :] - rng.normal(0.5, 0.02), axis[:, None] - rng.normal(0.5, 0.02))
        colour *= 0.03 + 0.97 * falling(away.astype(np.float32), radius, rng.uniform(0.006, 0.04))
    return exposed(rng, colour, canvas.patient)


def _ruler(rng: np.random.Generator, size: int) -> np.ndarray:
    """Coverage of a millimetre scale along one side, every fifth and tenth mark longer."""
    pitch, edge = rng.uniform(0.025, 0.05), rng.uniform(0.02, 0.05)
    marks = np.arange(int(1 / pitch) + 1)
    length = np.where(marks % 10 == 0, 0.07, np.where(marks % 5 == 0, 0.05, 0.03))
    base = np.stack([marks * pitch, np.full(len(marks), edge)], -1)
    tip = base + np.stack([np.zeros(len(marks)), length], -1)
    scale = strokes(size, np.stack([base, (base + tip) / 2, tip], 1), np.full(len(marks), 0.005))
    return np.rot90(scale, int(rng.integers(4)))


def _lesion(
    rng: np.random.Generator, c: Canvas, radius: tuple[float, float], *, wobble: float, stretch: float = 1.5
) -> tuple[np.ndarray, Disc]:
    """The lesion in the middle: rho over the whole image, and its disc (x, y, radius)."""
    x, y = rng.normal(0.5, 0.035, 2)
    r = rng.uniform(*radius)
    _, rho = c.around(
        x, y, r, reach=99, stretch=rng.uniform(1, stretch), angle=rng.uniform(0, np.pi), wobble=wobble
    )
    return rho, (float(x), float(y), float(r))


def _network(rng: np.random.Generator, c: Canvas, *, meshes: tuple[int, int]) -> np.ndarray:
    """Pigment network [S, S] in [0, 1], 1 on its lines; `meshes`: range of the number of meshes per side."""
    net = honeycomb(c, rng.uniform(*meshes), rng.uniform(0, np.pi))
    return np.clip(0.55 - 0.75 * net, 0, 1)


def _dots(
    rng: np.random.Generator, c: Canvas, disc: Disc, count: int, radius: tuple[float, float]
) -> list[tuple[Window, np.ndarray]]:
    """Windows and rho of dots scattered over the lesion at `disc`, (x, y, radius)."""
    x, y, r = disc
    turn, out = rng.uniform(0, 2 * np.pi, count), r * 0.85 * np.sqrt(rng.random(count))
    return [
        c.around(x + o * np.cos(t), y + o * np.sin(t), rng.uniform(*radius), reach=1.8, wobble=0.15)
        for t, o in zip(turn, out, strict=True)
    ]


def _branches(
    rng: np.random.Generator, c: Canvas, x: float, y: float, reach: float, width: float
) -> np.ndarray:
    """A branching vessel [S, S]: a stem from (x, y) whose forks get shorter and thinner."""
    tips = [(np.array([y, x]), rng.uniform(0, 2 * np.pi), reach, width)]
    curves, widths = [], []
    for _ in range(4):
        grown = []
        for start, heading, length, thick in tips:
            bend = heading + rng.normal(0, 0.5)
            middle = start + 0.5 * length * np.array([np.sin(heading), np.cos(heading)])
            end = middle + 0.5 * length * np.array([np.sin(bend), np.cos(bend)])
            curves.append([start, middle, end])
            widths.append(thick)
            grown += [
                (end, bend + side * rng.uniform(0.3, 0.9), length * rng.uniform(0.5, 0.85), 0.7 * thick)
                for side in (-1, 1)
                if rng.random() < 0.8
            ]
        tips = grown
    return strokes(c.size, np.array(curves), np.array(widths))


def _akiec(rng: np.random.Generator, c: Canvas) -> None:
    """Actinic keratosis: pink-red pseudonetwork around pale follicles ("strawberry"), yellow-white scale."""
    rho, _ = _lesion(rng, c, (0.24, 0.42), wobble=0.14)
    patch = falling(rho, 0.9, rng.uniform(0.2, 0.45))
    c.blood += patch * rng.uniform(0.5, 1.2) * (1 + 0.25 * c.rough + 0.3 * noise(rng, 32, c.size))
    follicles = np.clip(honeycomb(c, rng.uniform(10, 18), rng.uniform(0, 3.1)) - 0.3, 0, 1)
    c.blood -= 0.5 * patch * follicles
    c.smear(EVERYWHERE, (0.93, 0.85, 0.68), 0.25 * patch * follicles)
    c.melanin += patch * rng.uniform(0, 0.25) * (1 - follicles)
    scale = falling(
        -(noise(rng, 12, c.size) + 0.7 * c.rough + 0.4 * noise(rng, 64, c.size)), -rng.uniform(0.5, 1.3), 0.4
    )
    c.smear(EVERYWHERE, (0.93, 0.87, 0.72), rng.uniform(0.5, 0.9) * scale * patch)
    c.relief += 0.006 * scale * patch


def _bcc(rng: np.random.Generator, c: Canvas) -> None:
    """Basal cell carcinoma: pearly pink, sharp arborising vessels, blue-grey ovoid nests, an ulcer."""
    rho, (x, y, r) = _lesion(rng, c, (0.22, 0.4), wobble=0.12)
    body = falling(rho, 0.92, 0.22)
    c.blood += body * rng.uniform(0.1, 0.7)
    c.smear(EVERYWHERE, (0.94, 0.82, 0.78), 0.35 * body)
    c.relief += 0.03 * falling(rho, 0.7, 0.4)
    for _ in range(rng.integers(2, 6)):
        turn = rng.uniform(0, 2 * np.pi)
        vessel = _branches(
            rng, c, x + 0.7 * r * np.cos(turn), y + 0.7 * r * np.sin(turn), r * 0.5, rng.uniform(0.006, 0.011)
        )
        c.smear(EVERYWHERE, (0.72, 0.13, 0.16), 0.75 * vessel * (0.35 + 0.65 * body))
    for where, dot in _dots(rng, c, (x, y, r), int(rng.integers(0, 16)), (0.012, 0.05)):
        c.smear(where, (0.36, 0.37, 0.46), rng.uniform(0.4, 0.85) * falling(dot, 0.8, 0.35))
    if rng.random() < 0.4:
        ux, uy = rng.normal((x, y), 0.3 * r)
        where, ulcer = c.around(ux, uy, r * rng.uniform(0.2, 0.45), reach=1.6, wobble=0.2)
        c.smear(where, (0.5, 0.14, 0.1), 0.85 * falling(ulcer, 0.8, 0.15) * (0.9 + 0.15 * c.rough[where]))
    c.gloss += 0.1 * body


def _bkl(rng: np.random.Generator, c: Canvas) -> None:
    """Seborrhoeic keratosis: waxy, stuck on, sharp-edged; white milia, dark plugs, ridges like a brain."""
    rho, disc = _lesion(rng, c, (0.24, 0.42), wobble=0.1)
    body = falling(rho, 0.94, rng.uniform(0.05, 0.14))
    c.melanin += body * rng.uniform(0.15, 0.7) * (1 + 0.2 * c.warp + 0.12 * c.rough)
    c.smear(EVERYWHERE, (0.72, 0.55, 0.33), rng.uniform(0.1, 0.45) * body)
    gyri = noise(rng, 16, c.size) + 0.3 * noise(rng, 32, c.size)
    sulcus = ring(gyri, 0, 0.35) * body * rng.uniform(0.1, 0.9)
    c.melanin += 0.5 * sulcus
    c.relief += body * (0.012 + 0.003 * gyri)
    for where, dot in _dots(rng, c, disc, int(rng.integers(4, 30)), (0.006, 0.017)):
        c.smear(where, (0.97, 0.93, 0.83), rng.uniform(0.4, 0.9) * falling(dot, 0.6, 0.5))
    for where, dot in _dots(rng, c, disc, int(rng.integers(0, 22)), (0.008, 0.022)):
        c.smear(where, (0.2, 0.12, 0.06), rng.uniform(0.5, 0.9) * falling(dot, 0.8, 0.3))


def _df(rng: np.random.Generator, c: Canvas) -> None:
    """Dermatofibroma: a white, scar-like middle within a fine brown network that fades outwards."""
    rho, _ = _lesion(rng, c, (0.2, 0.36), wobble=0.07, stretch=1.2)
    rim = falling(rho, 0.85, 0.5) * (1 - 0.7 * falling(rho, 0.4, 0.25))
    c.melanin += rim * (rng.uniform(0.06, 0.2) + rng.uniform(0.15, 0.4) * _network(rng, c, meshes=(24, 34)))
    c.blood += rng.uniform(0.1, 0.6) * falling(rho, 0.9, 0.4)
    scar = falling(rho + 0.12 * noise(rng, 12, c.size), 0.42, 0.3)
    c.smear(EVERYWHERE, (0.95, 0.87, 0.83), rng.uniform(0.45, 0.8) * scar * (1 + 0.12 * c.rough))
    c.relief += 0.012 * falling(rho, 0.5, 0.4)


def _mel(rng: np.random.Generator, c: Canvas) -> None:
    """Melanoma: lopsided, ragged, many colours; broken network, uneven dots, blue-white veil, pale scars."""
    rho, (x, y, r) = _lesion(rng, c, (0.28, 0.44), wobble=0.17, stretch=1.8)
    lx, ly = rng.normal((x, y), 0.45 * r)
    _, lobe = c.around(lx, ly, 0.7 * r, reach=99, stretch=1.4, angle=rng.uniform(0, 3.1), wobble=0.2)
    body = falling(np.minimum(rho, lobe), 0.92, rng.uniform(0.06, 0.2))
    patches = noise(rng, 4, c.size) + 0.4 * noise(rng, 12, c.size)
    depth = np.clip(rng.uniform(0.4, 0.9) + 0.4 * patches, 0.12, 1.8)
    c.melanin += (
        body
        * depth
        * (0.75 + 0.45 * _network(rng, c, meshes=(15, 24)) * falling(-noise(rng, 4, c.size), 0, 0.5))
    )
    for where, dot in _dots(rng, c, (x, y, 1.1 * r), int(rng.integers(5, 40)), (0.006, 0.022)):
        c.melanin[where] += 0.9 * falling(dot, 0.8, 0.4)
    if rng.random() < 0.65:
        veil = falling(-(noise(rng, 3, c.size) + 0.2 * c.warp), -0.3, 0.5) * falling(rho, 0.7, 0.3)
        c.smear(EVERYWHERE, (0.42, 0.46, 0.58), rng.uniform(0.4, 0.75) * veil * body)
    if rng.random() < 0.5:
        pale = falling(-noise(rng, 4, c.size), -0.7, 0.4) * body
        c.smear(EVERYWHERE, (0.9, 0.78, 0.74), 0.65 * pale)
    c.blood += rng.uniform(0, 0.8) * body * np.clip(noise(rng, 4, c.size), 0, 1)


def _nv(rng: np.random.Generator, c: Canvas) -> None:
    """Naevus: symmetric, one or two browns; a regular network that thins out at the edge, or globules."""
    rho, disc = _lesion(rng, c, (0.18, 0.38), wobble=0.07, stretch=1.45)
    body = falling(rho, 0.88, rng.uniform(0.12, 0.35))
    brown = rng.uniform(0.15, 0.6)
    if rng.random() < 0.65:
        pattern = 0.45 + 0.75 * _network(rng, c, meshes=(24, 34))
    else:
        pattern = 0.6 + 0.35 * np.clip(honeycomb(c, rng.uniform(16, 26), rng.uniform(0, 3.1)), -0.6, 1.2)
    c.melanin += body * brown * pattern * (1 + 0.12 * c.warp)
    c.melanin += rng.uniform(-0.1, 0.3) * brown * falling(rho, 0.45, 0.4)
    c.blood += rng.uniform(-0.1, 0.35) * body
    for where, dot in _dots(rng, c, disc, int(rng.integers(0, 12)), (0.006, 0.012)):
        c.melanin[where] += 0.4 * falling(dot, 0.8, 0.4)


def _vasc(rng: np.random.Generator, c: Canvas) -> None:
    """Angioma: well-bounded round red to violet lakes, separated by pale septa; blue-black where clotted."""
    rho, disc = _lesion(rng, c, (0.2, 0.36), wobble=0.07, stretch=1.3)
    body = falling(rho, 0.95, 0.1)
    violet = rng.uniform(0, 0.5)
    c.blood += rng.uniform(0.6, 1.3) * falling(rho, 1.0, 0.15)
    c.smear(EVERYWHERE, (0.85, 0.66, 0.7), 0.35 * body)
    near = np.full((c.size, c.size), 9, np.float32)
    for where, lake in _dots(rng, c, disc, int(rng.integers(14, 50)), (0.025, 0.07)):
        np.minimum(near[where], lake, out=near[where])
    lakes = falling(near, 0.8, 0.25) * falling(rho, 0.98, 0.08)
    c.smear(EVERYWHERE, (0.66 - 0.35 * violet, 0.1, 0.14 + 0.35 * violet), 0.85 * lakes)
    clot = falling(-noise(rng, 4, c.size), -rng.uniform(0.4, 2.2), 0.4) * lakes
    c.smear(EVERYWHERE, (0.12, 0.06, 0.16), 0.8 * clot)
    c.relief += 0.006 * lakes + 0.02 * falling(rho, 0.8, 0.3)
    c.gloss += 0.1 * body


DERMOSCOPED: dict[str, Recipe] = {
    "akiec": _akiec,
    "bcc": _bcc,
    "bkl": _bkl,
    "df": _df,
    "mel": _mel,
    "nv": _nv,
    "vasc": _vasc,
}
