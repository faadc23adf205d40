"""Recipes for the clinical photographs: each paints one morphology, in millimetres, onto bare skin."""

from collections.abc import Callable

import numpy as np

from mim_jax.data.synthetic.fields import centres, falling, noise, ring, scatter, strokes
from mim_jax.data.synthetic.skin import EVERYWHERE, Canvas, honeycomb

Recipe = Callable[[np.random.Generator, Canvas], None]


def _crowd(rng: np.random.Generator, c: Canvas, per_cm2: tuple[float, float], most: int) -> int:
    """Number of lesions in the field of view, at a log-uniform density per square centimetre."""
    density = np.exp(rng.uniform(*np.log(per_cm2)))
    return int(np.clip(rng.poisson(density * (0.1 / c.mm) ** 2), 1, most))


def _mpox(rng: np.random.Generator, c: Canvas) -> None:
    """Firm, deep-seated, round, well-bounded, dimpled papules and pustules, all of a patient at one stage."""
    radius = rng.uniform(2.4, 4.6) * c.mm
    for x, y in scatter(rng, _crowd(rng, c, (0.12, 0.9), 45), 2.3 * radius):
        stage = c.patient.stage + rng.normal(0, 0.07)
        _umbilicated(rng, c, x, y, radius * rng.uniform(0.75, 1.25), stage)


def _umbilicated(rng: np.random.Generator, c: Canvas, x: float, y: float, r: float, stage: float) -> None:
    """One lesion of `_mpox`: papule, pustule from stage 0.2, crusted outwards from the dimple from 0.58."""
    where, rho = c.oval(rng, x, y, r, 1.25, reach=2.4, wobble=0.055)
    pustule = float(np.clip((stage - 0.2) * 4, 0, 1))
    crust = float(np.clip((stage - 0.58) * 5, 0, 1)) * rng.uniform(0.5, 1)
    dimple = float(np.clip(stage * 5, 0.25, 1)) * rng.uniform(0.5, 1)
    rough = c.rough[where]
    c.blood[where] += rng.uniform(0.15, 0.8) * falling(rho, 1.45, 0.9)
    c.blood[where] += rng.uniform(0.2, 0.7) * falling(rho, 1.1, 0.45)
    c.melanin[where] += 0.12 * c.patient.tone * ring(rho, 1.05, 0.4)
    c.relief[where] += r * (
        0.32 * falling(rho, 0.75, 0.42)
        - 0.13 * dimple * ring(rho, 0, 0.5)
        + crust * 0.03 * rough * falling(rho, 0.5, 0.3)
    )
    pus = (0.9, 0.81 - 0.05 * stage, 0.68 - 0.16 * stage)
    c.smear(where, pus, (0.55 - 0.3 * crust) * pustule * falling(rho, 0.7, 0.3))
    c.smear(where, (0.58, 0.3, 0.24), 0.55 * dimple * pustule * falling(rho, 0.24, 0.2))
    scab = falling(rho + 0.08 * rough, 0.22 + 0.4 * crust, 0.16)
    c.smear(where, (0.32, 0.19, 0.13), 0.9 * crust * scab * (0.85 + 0.15 * rough))
    c.gloss[where] += (0.14 * pustule * (1 - crust) + 0.04) * falling(rho, 0.9, 0.2)


def _chickenpox(rng: np.random.Generator, c: Canvas) -> None:
    """Every stage side by side: macules, thin-walled teardrop vesicles on ragged red bases, scabs."""
    radius = rng.uniform(1.3, 2.6) * c.mm
    run = rng.uniform(0, np.pi)
    for x, y in scatter(rng, _crowd(rng, c, (0.25, 1.6), 55), 2.6 * radius):
        r, kind, angle = radius * rng.uniform(0.6, 1.4), rng.random(), run + rng.normal(0, 0.6)
        where, rho = c.around(x, y, r, reach=2.0, stretch=rng.uniform(1, 1.5), angle=angle, wobble=0.17)
        c.blood[where] += rng.uniform(0.5, 1.2) * falling(rho, 1.2, 0.8)
        if kind < 0.2:
            continue
        if kind < 0.35:
            c.relief[where] += 0.3 * r * falling(rho, 0.7, 0.6)
        elif kind < 0.8:
            inner, drop = c.around(x, y, 0.85 * r, stretch=rng.uniform(1.1, 1.6), angle=angle, wobble=0.08)
            cloudy = rng.random()
            c.relief[inner] += 0.5 * r * np.maximum(1 - drop * drop, 0)
            fluid = (0.9, 0.84 - 0.04 * cloudy, 0.76 - 0.14 * cloudy)
            c.smear(inner, fluid, (0.3 + 0.35 * cloudy) * falling(drop, 0.85, 0.2))
            c.gloss[inner] += 0.5 * falling(drop, 0.9, 0.15)
            c.blood[inner] -= 0.5 * falling(drop, 0.8, 0.2)
        else:
            rough = c.rough[where]
            scab = falling(rho + 0.12 * rough, 0.5, 0.25)
            c.smear(where, (0.42, 0.23, 0.15), 0.9 * scab * (0.85 + 0.15 * rough))
            c.relief[where] += r * scab * (0.12 + 0.08 * rough)


def _measles(rng: np.random.Generator, c: Canvas) -> None:
    """Flat to slightly raised red blotches that run together."""
    coarse = noise(rng, np.clip(0.12 / c.mm, 4, 16), c.size)
    fine = noise(rng, np.clip(0.3 / c.mm, 8, 48), c.size)
    level = coarse * 0.5 + fine * 0.8 + 0.5 * noise(rng, 2, c.size) + rng.uniform(-0.5, 0.6)
    blotch = falling(-level, -0.35, rng.uniform(0.6, 1.1))
    c.blood += blotch * rng.uniform(0.5, 1.2) * (1 + 0.15 * c.rough)
    c.melanin += 0.15 * c.patient.tone * blotch
    c.relief += 0.15 * c.mm * blotch
    for x, y in scatter(rng, _crowd(rng, c, (0.3, 1.2), 40), 3 * c.mm, spread=9.0):
        where, rho = c.around(x, y, rng.uniform(1.2, 2.6) * c.mm, reach=1.8, wobble=0.2)
        c.blood[where] += rng.uniform(0.4, 1) * falling(rho, 1, 0.6)
        c.relief[where] += 0.25 * c.mm * falling(rho, 0.8, 0.5)


def _hfmd(rng: np.random.Generator, c: Canvas) -> None:
    """Small oval greyish vesicles with a thin red rim, lying along the skin lines; often on ridged palms."""
    run = rng.uniform(0, np.pi)
    if rng.random() < 0.5:
        axis = centres(c.size)
        across = np.cos(run) * axis[:, None] - np.sin(run) * axis[None, :]
        along = 1.1 / c.mm * across + 1.5 * noise(rng, 3, c.size)
        fade = np.clip(2 - 9 / c.mm / c.size, 0, 1)
        c.relief += np.float32(0.03 * fade * c.mm) * np.cos(np.float32(2 * np.pi) * along.astype(np.float32))
        c.melanin *= 0.55
    radius = rng.uniform(1.3, 2.5) * c.mm
    for x, y in scatter(rng, _crowd(rng, c, (0.15, 1.0), 40), 2.8 * radius):
        r = radius * rng.uniform(0.6, 1.3)
        where, rho = c.around(
            x, y, r, reach=2.2, stretch=rng.uniform(1.4, 2.3), angle=run + rng.normal(0, 0.25), wobble=0.07
        )
        c.blood[where] += rng.uniform(0.2, 0.9) * ring(rho, 1.05, 0.7)
        c.blood[where] += rng.uniform(0.1, 0.5) * falling(rho, 1.4, 0.7)
        c.smear(where, (0.74, 0.69, 0.65), rng.uniform(0, 0.55) * falling(rho, 0.75, 0.25))
        c.relief[where] += 0.18 * r * falling(rho, 0.8, 0.3)
        c.gloss[where] += 0.15 * falling(rho, 0.8, 0.2)


def _bacterial_infection(rng: np.random.Generator, c: Canvas) -> None:
    """Impetigo's honey crusts, a boil with its swollen surroundings, or folliculitis."""
    kind = rng.random()
    if kind < 0.45:
        radius = np.clip(rng.uniform(4, 11) * c.mm, 0.05, 0.28)
        for x, y in scatter(rng, int(rng.integers(2, 9)), 1.5 * radius, spread=0.22):
            r = radius * rng.uniform(0.4, 1.2)
            where, rho = c.oval(rng, x, y, r, 1.5, reach=2.2, wobble=0.25)
            rough = c.rough[where] + 0.5 * c.warp[where]
            c.blood[where] += rng.uniform(0.8, 1.6) * falling(rho, 1.15, 0.4)
            honey = falling(rho + 0.28 * rough, 0.72, 0.16) * (0.8 + 0.2 * rough)
            c.smear(where, (0.78, 0.52, 0.2), 0.85 * honey)
            c.smear(where, (0.4, 0.2, 0.08), 0.7 * falling(rho - 0.35 * rough, 0.22, 0.15))
            c.relief[where] += c.mm * (0.5 + 0.4 * rough) * falling(rho, 0.75, 0.25)
            c.gloss[where] += 0.2 * falling(rho, 0.85, 0.2)
    elif kind < 0.75:
        x, y = rng.uniform(0.35, 0.65, 2)
        r = np.clip(rng.uniform(9, 22) * c.mm, 0.12, 0.36)
        where, rho = c.oval(rng, x, y, r, 1.3, reach=2.6, wobble=0.1)
        c.blood[where] += rng.uniform(1.0, 2.2) * falling(rho, 1.1, 0.9)
        c.relief[where] += 0.35 * r * falling(rho, 0.5, 0.75)
        c.gloss[where] += 0.2 * falling(rho, 0.8, 0.5)
        for _ in range(rng.integers(1, 4)):
            hx, hy = rng.normal((x, y), 0.22 * r)
            head, rho = c.around(hx, hy, r * rng.uniform(0.1, 0.25), reach=2, wobble=0.15)
            c.smear(head, (0.9, 0.84, 0.55), 0.85 * falling(rho, 0.8, 0.3))
            c.smear(head, (0.35, 0.1, 0.08), rng.uniform(0, 0.9) * falling(rho, 0.4, 0.2))
            c.relief[head] += 0.03 * r * falling(rho, 0.7, 0.5)
    else:
        for x, y in scatter(rng, _crowd(rng, c, (0.5, 2.5), 60), 3 * c.mm):
            where, rho = c.around(x, y, rng.uniform(0.9, 1.7) * c.mm, reach=2.4, wobble=0.1)
            c.blood[where] += rng.uniform(0.5, 1.5) * falling(rho, 1.3, 0.9)
            c.relief[where] += 0.35 * c.mm * falling(rho, 0.6, 0.6)
            c.smear(where, (0.93, 0.88, 0.66), rng.choice([0, 0.8]) * falling(rho, 0.45, 0.2))


def _bullous(rng: np.random.Generator, c: Canvas) -> None:
    """Large tense blisters with clear amber or bloody fluid, and the raw, rimmed erosions they leave."""
    radius = np.clip(rng.uniform(5, 14) * c.mm, 0.06, 0.24)
    for x, y in scatter(rng, int(rng.integers(1, 9)), 1.9 * radius):
        r, wobble = radius * rng.uniform(0.4, 1.25), rng.uniform(0.03, 0.09)
        where, rho = c.oval(rng, x, y, r, 1.5, reach=1.9, wobble=wobble)
        c.blood[where] += rng.uniform(0.1, 1.3) * falling(rho, 1.3, 0.5)
        if rng.random() < 0.68:
            fluid = (0.45, 0.16, 0.16) if rng.random() < 0.2 else (0.9, 0.76, 0.52)
            dome = np.sqrt(np.maximum(1 - rho * rho, 0)) * falling(rho, 0.95, 0.1)
            c.relief[where] = c.relief[where] * (1 - 0.9 * falling(rho, 0.9, 0.1)) + 0.33 * r * dome
            c.smear(where, fluid, rng.uniform(0.2, 0.5) * falling(rho, 0.93, 0.08))
            c.blood[where] += 0.4 * ring(rho, 1, 0.15)
            c.gloss[where] += 0.6 * falling(rho, 0.95, 0.05)
        else:
            raw = falling(rho, 0.9, 0.08)
            c.smear(where, (0.72, 0.24, 0.22), 0.8 * raw * (0.9 + 0.12 * c.rough[where]))
            c.smear(where, (0.9, 0.82, 0.72), rng.uniform(0.1, 0.6) * ring(rho, 0.95, 0.16))
            c.relief[where] += c.mm * (0.5 * ring(rho, 0.97, 0.2) + 0.04 * c.rough[where] * raw)
            c.gloss[where] += 0.45 * raw


def _eczema(rng: np.random.Generator, c: Canvas) -> None:
    """Ill-bounded red patches, scaly or thickened with coarse skin lines, scratched."""
    field = 0.7 * noise(rng, 3, c.size) + 0.5 * c.sway + 0.3 * c.warp + rng.uniform(-0.3, 0.5)
    patch = falling(-field, -0.1, rng.uniform(0.5, 1.2))
    flaky = noise(rng, 64, c.size) + 0.8 * noise(rng, 128, c.size) + 0.6 * c.warp
    c.blood += patch * rng.uniform(0.6, 1.5) * (1 + 0.12 * c.rough)
    c.melanin += patch * c.patient.tone * rng.uniform(0, 0.3)
    c.relief *= 1 + patch * rng.uniform(0.3, 2.2)
    c.relief += c.mm * 0.3 * patch * (1 + 0.3 * c.rough)
    scale = patch * falling(-flaky, -rng.uniform(0.9, 2.0), 1.0)
    c.smear(EVERYWHERE, (0.92, 0.88, 0.83), rng.uniform(0.15, 0.6) * scale)
    c.relief += 0.08 * c.mm * scale
    for x, y in scatter(rng, int(rng.integers(4, 40)), 2 * c.mm, spread=9.0):
        where, rho = c.around(x, y, rng.uniform(0.6, 1.5) * c.mm, reach=1.8, wobble=0.15)
        c.blood[where] += 0.8 * patch[where] * falling(rho, 1, 0.6)
        c.relief[where] += 0.3 * c.mm * patch[where] * falling(rho, 0.8, 0.5)
    if rng.random() < 0.6:
        count = int(rng.integers(3, 14))
        start, run = rng.uniform(0.1, 0.9, (count, 1, 2)), rng.uniform(0, 2 * np.pi)
        heading = run + rng.normal(0, 0.25, (count, 2, 1))
        leg = rng.uniform(2, 9, (count, 1, 1)) * c.mm * np.concatenate([np.sin(heading), np.cos(heading)], -1)
        curve = np.concatenate([start, start + leg.cumsum(1)], 1)
        scratch = strokes(c.size, curve, rng.uniform(0.15, 0.4, count) * c.mm)
        c.smear(EVERYWHERE, (0.42, 0.12, 0.1), 0.75 * scratch * (0.75 + 0.25 * c.rough))


def _hpv(rng: np.random.Generator, c: Canvas) -> None:
    """Warts: skin-coloured to grey, papillated, horny, black dots of clotted vessels; or small and flat."""
    if rng.random() < 0.25:
        for x, y in scatter(rng, _crowd(rng, c, (0.4, 2.5), 60), 2.6 * c.mm):
            r = rng.uniform(0.9, 2.0) * c.mm
            where, rho = c.around(x, y, r, stretch=rng.uniform(1, 1.4), wobble=0.12)
            c.relief[where] += 0.4 * c.mm * falling(rho, 0.85, 0.15)
            c.melanin[where] += rng.uniform(-0.02, 0.12) * falling(rho, 0.9, 0.2)
            c.blood[where] += rng.uniform(-0.1, 0.4) * falling(rho, 0.9, 0.2)
        return
    radius = rng.uniform(2.5, 6.5) * c.mm
    horny = rng.uniform(0.2, 0.9)
    for x, y in scatter(rng, _crowd(rng, c, (0.05, 0.5), 18), 1.7 * radius):
        r = radius * rng.uniform(0.5, 1.3)
        where, rho = c.oval(rng, x, y, r, 1.3, reach=1.7, wobble=0.09)
        body = falling(rho, 0.88, 0.16)
        # Papillae, about a millimetre apart, are the crests of a warped honeycomb.
        crest = honeycomb(c, 1.0 / c.mm / rng.uniform(0.8, 1.3), rng.uniform(0, 3.1))[where]
        c.relief[where] += body * (0.24 * r + 0.08 * c.mm * crest + 0.05 * c.mm * c.rough[where])
        c.blood[where] += rng.uniform(0, 0.5) * falling(rho, 1.2, 0.35)
        c.smear(where, (0.84, 0.77, 0.66), horny * body * np.clip(0.5 + 0.35 * crest, 0, 1))
        for _ in range(rng.integers(0, 14)):
            turn, out = rng.uniform(0, 6.3), r * 0.7 * np.sqrt(rng.random())
            dx, dy = x + out * np.cos(turn), y + out * np.sin(turn)
            dot, rho = c.around(dx, dy, rng.uniform(0.2, 0.4) * c.mm, reach=1.6)
            c.smear(dot, (0.16, 0.07, 0.06), 0.85 * falling(rho, 0.8, 0.5))


def _urticaria(rng: np.random.Generator, c: Canvas) -> None:
    """Wheals: smooth, raised plateaus, pale in the middle with a red flare, round, ringed or run together."""
    radius = np.clip(rng.uniform(5, 16) * c.mm, 0.05, 0.26)
    ringed, pale = rng.random() < 0.3, rng.uniform(0.2, 0.9)
    near = np.full((c.size, c.size), 9, np.float32)
    for x, y in scatter(rng, int(rng.integers(2, 22)), 0.9 * radius):
        r = radius * rng.uniform(0.35, 1.2)
        where, rho = c.oval(rng, x, y, r, 2, reach=1.6, wobble=0.13)
        np.minimum(near[where], rho, out=near[where])
    plateau = falling(near, 0.85, 0.3)
    if ringed:
        plateau *= 1 - 0.9 * falling(near, 0.45, 0.3)
    c.relief *= 1 - 0.6 * plateau
    c.relief += rng.uniform(0.5, 1.1) * c.mm * plateau
    c.blood += rng.uniform(0.6, 1.2) * falling(near, 1.2, 0.4) - pale * falling(near, 0.72, 0.3)


def _vascular_tumor(rng: np.random.Generator, c: Canvas) -> None:
    """Bright red, lobed and shiny haemangioma; pedicled granuloma; cherry spots; flat port-wine stain."""
    kind = rng.random()
    if kind < 0.2:
        field = noise(rng, 3, c.size) + 0.3 * noise(rng, 8, c.size) + 0.12 * c.warp + rng.uniform(-0.2, 0.5)
        stain = falling(-field, 0, 0.18)
        c.blood += rng.uniform(1.0, 2.4) * stain * (1 + 0.12 * c.rough)
        c.melanin += 0.12 * stain
        return
    # A pedicled granuloma, a crop of cherry spots, or one large haemangioma.
    low, high, most = (3.5, 7.0, 1) if kind < 0.45 else (1.0, 2.2, 30) if kind < 0.7 else (9.0, 22.0, 1)
    radius = np.clip(rng.uniform(low, high) * c.mm, 0.012, 0.32)
    lobes = noise(rng, 3 / radius, c.size)
    dark = rng.uniform(0, 0.35)
    for x, y in scatter(rng, _crowd(rng, c, (0.1, 0.8), most), 2 * radius):
        r = radius * rng.uniform(0.7, 1.2)
        where, rho = c.oval(rng, x, y, r, 1.4, wobble=0.08)
        body = falling(rho, 0.9, 0.14)
        c.blood[where] += (2.4 + dark * 2) * body * (1 - 0.1 * lobes[where]) + 0.4 * falling(rho, 1.0, 0.4)
        c.melanin[where] += (dark - 0.5 * c.melanin[where]) * body
        c.relief[where] += r * (0.36 * falling(rho, 0.65, 0.4) + 0.05 * lobes[where] * body)
        c.gloss[where] += rng.uniform(0.15, 0.5) * body


def _vasculitis(rng: np.random.Generator, c: Canvas) -> None:
    """Palpable purpura: crops of dark red to violet spots that flow together, some black in the middle."""
    violet = rng.uniform(0.1, 0.5)
    for x, y in scatter(rng, _crowd(rng, c, (0.8, 5.0), 110), 1.4 * c.mm):
        r = c.mm * np.clip(rng.lognormal(0.3, 0.5), 0.6, 5)
        where, rho = c.oval(rng, x, y, r, 1.4, reach=1.9, wobble=0.2)
        spot = falling(rho, 0.95, 0.4)
        c.blood[where] += rng.uniform(1.1, 2.4) * spot
        c.melanin[where] += violet * rng.uniform(0.6, 1.2) * spot
        c.relief[where] += 0.25 * r * falling(rho, 0.8, 0.5)
        if r > 2.2 * c.mm and rng.random() < 0.35:
            c.smear(where, (0.12, 0.07, 0.09), 0.85 * falling(rho, 0.5, 0.2))
    c.blood += 0.2 * np.maximum(noise(rng, 3, c.size), 0)


def _viral_infection(rng: np.random.Generator, c: Canvas) -> None:
    """Herpes: grouped vesicles on one red base, a band in shingles; or molluscum's pearly dimpled domes."""
    if rng.random() < 0.35:
        radius = rng.uniform(1.3, 2.6) * c.mm
        for x, y in scatter(rng, _crowd(rng, c, (0.12, 1.2), 40), 2.2 * radius):
            r = radius * rng.uniform(0.6, 1.3)
            where, rho = c.around(x, y, r, reach=1.9, wobble=0.03)
            c.blood[where] += rng.uniform(-0.1, 0.4) * falling(rho, 1.2, 0.5) - 0.3 * falling(rho, 0.8, 0.3)
            c.melanin[where] *= 1 - 0.25 * falling(rho, 0.9, 0.2)
            c.relief[where] += r * (0.36 * falling(rho, 0.62, 0.45) - 0.12 * ring(rho, 0, 0.36))
            c.smear(where, (0.9, 0.8, 0.72), 0.25 * falling(rho, 0.75, 0.25) + 0.35 * ring(rho, 0, 0.3))
            c.gloss[where] += 0.2 * falling(rho, 0.9, 0.2)
        return
    band, heading = rng.random() < 0.45, rng.uniform(0, np.pi)
    x, y = rng.uniform(0.35, 0.65, 2)
    groups = rng.integers(3, 7) if band else rng.integers(1, 3)
    for place in np.linspace(-0.45, 0.45, groups) if groups > 1 else [0.0]:
        gx = x + place * np.cos(heading) + rng.normal(0, 0.04)
        gy = y + place * np.sin(heading) + rng.normal(0, 0.04)
        base = np.clip(rng.uniform(6, 12) * c.mm, 0.07, 0.2)
        where, rho = c.around(
            gx, gy, base, reach=2.2, stretch=rng.uniform(1, 1.6), angle=heading, wobble=0.25
        )
        c.blood[where] += rng.uniform(0.6, 1.3) * falling(rho, 1.0, 0.8)
        c.relief[where] += 0.3 * c.mm * falling(rho, 0.9, 0.6)
        crusted = rng.random() < 0.3
        for _ in range(rng.integers(5, 16)):
            vx, vy = rng.normal((gx, gy), 0.5 * base)
            inner, drop = c.around(vx, vy, rng.uniform(0.9, 1.9) * c.mm, reach=1.5, wobble=0.1)
            c.relief[inner] += 0.35 * c.mm * np.maximum(1 - drop * drop, 0)
            colour = (0.36, 0.18, 0.1) if crusted else (0.88, 0.78, 0.66)
            c.smear(inner, colour, rng.uniform(0.2, 0.65) * falling(drop, 0.85, 0.2))
            c.gloss[inner] += (0.1 if crusted else 0.25) * falling(drop, 0.9, 0.15)


PHOTOGRAPHED: dict[str, Recipe] = {
    "mpox": _mpox,
    "chickenpox": _chickenpox,
    "measles": _measles,
    "hfmd": _hfmd,
    "bacterial_infection": _bacterial_infection,
    "bullous": _bullous,
    "eczema": _eczema,
    "hpv": _hpv,
    "urticaria": _urticaria,
    "vascular_tumor": _vascular_tumor,
    "vasculitis": _vasculitis,
    "viral_infection": _viral_infection,
}
