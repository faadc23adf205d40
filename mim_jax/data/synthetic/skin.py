"""Synthetic skin: pigment, blood, relief, light and camera, with which `lesions` paints its scenes.

A scene is a `Canvas` of physical layers rather than of colours: melanin and blood absorb, relief catches the
light, paint (pus, crust, scale) covers. One lesion recipe therefore suits every skin tone and every light.
Lengths are fractions of the image side, so a scene looks the same at every size; colours are display RGB
in [0, 1]. NumPy only.
"""

from dataclasses import dataclass

import numpy as np

from mim_jax.data.synthetic.fields import blurred, centres, falling, noise, strokes

Window = tuple[slice, slice]

# Display reflectance of skin without pigment, and absorbance per channel of a unit of melanin and of blood.
# Melanin absorbs more towards blue, haemoglobin in green and blue. Melanin from 0 to 1 then covers the
# Fitzpatrick types I to VI, and more and more blood in pale skin gives pink, red and purple.
BARE = np.array([0.97, 0.90, 0.84], np.float32)
MELANIN = np.array([0.92, 1.28, 1.52], np.float32)
BLOOD = np.array([0.10, 0.52, 0.43], np.float32)

# Blue and green drapes, white cloth, black velvet, a grey wall, beige bedding.
BACKDROPS = (
    (0.16, 0.30, 0.45),
    (0.20, 0.42, 0.36),
    (0.70, 0.70, 0.72),
    (0.07, 0.07, 0.08),
    (0.45, 0.44, 0.42),
    (0.60, 0.55, 0.48),
)

EVERYWHERE: Window = (slice(None), slice(None))


@dataclass(frozen=True)
class Patient:
    """The skin, light and camera that all photographs of one patient share.

    tone is melanin in [0, 1] and flush the skin's usual blood; azimuth (radians) and elevation (rise over
    run) give the direction of the light, falloff and vignette its decrease over the image; cast is the gain
    of each channel; blur and chroma_blur are in image sides, grain in display units; hair, freckles and
    lines are amounts, often 0 and about 1 at most; stage in [0, 1] is the age of an eruption.
    """

    tone: float
    flush: float
    azimuth: float
    elevation: float
    falloff: float
    vignette: float
    cast: np.ndarray
    exposure: float
    contrast: float
    blur: float
    chroma_blur: float
    grain: float
    hair: float
    freckles: float
    lines: float
    stage: float


def photographed(rng: np.random.Generator) -> Patient:
    """Draw a patient for an ordinary camera. Every photographic class uses this one distribution."""
    tone = float(np.clip(rng.choice([0.04, 0.14, 0.25, 0.4, 0.6, 0.82]) + rng.normal(0, 0.04), 0, 1))
    return Patient(
        tone=tone,
        flush=rng.uniform(0.12, 0.5),
        azimuth=rng.uniform(0, 2 * np.pi),
        elevation=rng.uniform(0.8, 2.5),
        falloff=rng.uniform(0, 0.35),
        vignette=rng.uniform(0, 0.35) * (rng.random() < 0.6),
        cast=np.exp(rng.normal(0, 1, 3) * [0.05, 0.02, 0.07]).astype(np.float32),
        exposure=rng.uniform(0.82, 1.06) * float(np.exp(0.35 * tone)),  # cameras expose for the skin
        contrast=rng.uniform(-0.05, 0.2),
        blur=float(rng.choice([0.0, 0.002, 0.003, 0.0045, 0.0065], p=[0.3, 0.25, 0.2, 0.15, 0.1])),
        chroma_blur=float(rng.choice([0.004, 0.007, 0.011])),
        grain=rng.uniform(0.004, 0.022),
        hair=max(0.0, rng.normal(0.1, 0.4)),
        freckles=max(0.0, rng.normal(-0.2, 0.5)),
        lines=rng.uniform(0.3, 1.3),
        stage=rng.beta(1.5, 1.2),
    )


@dataclass
class Canvas:
    """A scene being painted: layers [S, S] (paint [3, S, S], premultiplied by cover) that recipes add to.

    mm is the length of a millimetre in image sides; relief is a length too; sway, warp and rough are noise of
    unit variance, from coarse to fine, shared by ragged outlines and surfaces; sway and warp stay within
    [-2, 2].
    """

    size: int
    mm: float
    patient: Patient
    melanin: np.ndarray
    blood: np.ndarray
    relief: np.ndarray
    gloss: np.ndarray
    paint: np.ndarray
    cover: np.ndarray
    warp: np.ndarray
    sway: np.ndarray
    rough: np.ndarray

    def around(
        self,
        x: float,
        y: float,
        radius: float,
        *,
        reach: float = 1.4,
        stretch: float = 1.0,
        angle: float = 0.0,
        wobble: float = 0.08,
    ) -> tuple[Window, np.ndarray]:
        """Window around a lesion, and rho in it: the distance from the centre in (ragged) radii.

        The window is empty if the lesion is outside the image. `stretch` lengthens the lesion along `angle`;
        a recipe must not paint beyond rho = `reach`.
        """
        extent = radius * stretch * reach / (1 - 2 * wobble)  # noise is never below -2
        rows, columns = (
            slice(max(0, int((c - extent) * self.size)), max(0, int((c + extent) * self.size) + 1))
            for c in (y, x)
        )
        axis = centres(self.size)
        dx, dy = axis[None, columns] - np.float32(x), axis[rows, None] - np.float32(y)
        if stretch != 1:
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            dx, dy = (dx * cos + dy * sin) * np.float32(1 / stretch), dy * cos - dx * sin
        rho = np.sqrt(dx * dx + dy * dy) * np.float32(1 / radius)
        if wobble:
            # A large outline bends slowly, a small one within its own few millimetres.
            bend = self.sway if radius > 0.07 else self.warp
            rho = rho * (1 + np.float32(wobble) * bend[rows, columns])
        return (rows, columns), rho

    def oval(
        self, rng: np.random.Generator, x: float, y: float, radius: float, longest: float, **options: float
    ) -> tuple[Window, np.ndarray]:
        """Same as `around`, stretched by up to `longest` at a random angle."""
        return self.around(
            x, y, radius, stretch=rng.uniform(1, longest), angle=rng.uniform(0, 3.1), **options
        )

    def smear(self, where: Window, colour: tuple[float, float, float], alpha: np.ndarray) -> None:
        """Lay paint over the scene; the patient's own pigment dulls it a little."""
        tint = np.asarray(colour, np.float32) * np.exp(-0.35 * self.patient.tone * MELANIN)
        alpha = np.clip(alpha, 0, 1)
        paint, cover = self.paint[:, *where], self.cover[where]
        paint += alpha * (tint[:, None, None] - paint)
        cover += alpha * (1 - cover)


def honeycomb(canvas: Canvas, frequency: float, angle: float) -> np.ndarray:
    """Warped honeycomb [S, S] from about -1 (walls) to 2 (middles), `frequency` cells a side.

    Three plane waves at 120 degrees, cos(a) + cos(b) + cos(a + b), add up to a hexagonal lattice; it fades
    where the pixels cannot resolve it.
    """
    along = centres(canvas.size) * np.float32(2 * np.pi * frequency)
    bend = np.float32(2.0) * canvas.sway + np.float32(1.1) * canvas.warp
    a = along[None, :] * np.float32(np.cos(angle)) + along[:, None] * np.float32(np.sin(angle)) + bend
    bend = bend.T  # another field of the same kind
    turned = angle + 2 * np.pi / 3
    b = along[None, :] * np.float32(np.cos(turned)) + along[:, None] * np.float32(np.sin(turned)) + bend
    fade = np.float32(0.67 * np.clip(2 - 4 * frequency / canvas.size, 0, 1))
    return fade * (np.cos(a) + np.cos(b) + np.cos(a + b))


def bare_skin(
    rng: np.random.Generator, patient: Patient, size: int, *, field_mm: float, close: bool
) -> Canvas:
    """Draw skin with mottling, pores, lines, creases, freckles and hairs; `close` = under a dermatoscope."""
    fine = float(np.clip(field_mm * 1.1, 24, 128))
    mottled, patchy = noise(rng, 4, size), noise(rng, 12, size)
    rough, grains = noise(rng, fine / 1.5, size), noise(rng, 128, size)
    warp = np.clip(0.9 * noise(rng, 16, size) + 0.45 * noise(rng, 48, size), -2, 2)
    sway = np.clip(0.9 * noise(rng, 4, size) + 0.4 * noise(rng, 12, size), -2, 2)
    melanin = patient.tone * (1 + 0.07 * mottled + 0.04 * patchy + 0.03 * grains) + 0.012 * rough
    blood = patient.flush * (1 + 0.18 * mottled + 0.14 * patchy + 0.08 * rough) + 0.04 * grains
    relief = patient.lines * (0.05 / fine * rough + 0.02 / 128 * grains)
    canvas = Canvas(
        size, 1 / field_mm, patient, melanin, blood, relief,
        gloss=np.full((size, size), 0.05, np.float32),
        paint=np.zeros((3, size, size), np.float32), cover=np.zeros((size, size), np.float32),
        warp=warp, sway=sway, rough=rough,
    )  # fmt: skip
    _skin_lines(rng, canvas, fine)
    _marks(rng, canvas, close)
    return canvas


def _skin_lines(rng: np.random.Generator, canvas: Canvas, fine: float) -> None:
    """Add two crossing families of fine furrows, as on a hand; they fade when too fine for the pixels."""
    size, axis = canvas.size, centres(canvas.size)
    angle = rng.uniform(0, np.pi)
    warp = 1.2 * noise(rng, 6, size) + 0.35 * canvas.warp
    for turn, weight in ((0.0, 1.0), (rng.uniform(0.9, 1.6), 0.6)):
        lines = rng.uniform(0.5, 0.9) * fine
        visible = np.clip(2 - 4 * lines / size, 0, 1)
        along = lines * (np.cos(angle + turn) * axis[None, :] + np.sin(angle + turn) * axis[:, None])
        furrow = np.cos(np.float32(2 * np.pi) * (along + warp).astype(np.float32))
        furrow = np.maximum(furrow - 0.55, 0) * (1 + 0.6 * canvas.rough)
        canvas.relief -= np.float32(weight * visible * canvas.patient.lines * 0.028 / lines) * furrow


def _marks(rng: np.random.Generator, canvas: Canvas, close: bool) -> None:
    """Add creases, freckles and hairs."""
    size, patient = canvas.size, canvas.patient
    creases = int(rng.integers(1, 4))
    if not close and rng.random() < 0.45:
        start = rng.uniform(-0.1, 1.1, (creases, 1, 2))
        heading = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.15, (creases, 2, 1))
        leg = rng.uniform(0.2, 0.6, (creases, 2, 1)) * np.concatenate([np.sin(heading), np.cos(heading)], -1)
        curve = np.concatenate([start, start + leg.cumsum(1)], 1)
        crease = blurred(strokes(size, curve, np.full(creases, 0.008)), 0.004)
        canvas.relief -= 0.006 * crease
        canvas.blood += 0.5 * crease
    for _ in range(int(patient.freckles * 40)):
        x, y = rng.random(2)
        where, rho = canvas.around(x, y, canvas.mm * rng.uniform(0.5, 1.6), wobble=0.2)
        canvas.melanin[where] += rng.uniform(0.05, 0.25) * falling(rho, 0.8, 0.5)
    hairs = int(patient.hair * rng.uniform(10, 60))
    if hairs:
        start = rng.uniform(-0.1, 1.1, (hairs, 1, 2))
        heading = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5, (hairs, 2, 1)).cumsum(1)
        if close:
            length, thick = rng.uniform(0.1, 0.5, (hairs, 1, 1)), 0.0035
        else:
            length = canvas.mm * rng.gamma(6, 0.6, (hairs, 1, 1))
            thick = float(np.clip(0.09 * canvas.mm, 0.0012, 0.004))
        leg = length * np.concatenate([np.sin(heading), np.cos(heading)], -1)
        curve = np.concatenate([start, start + leg.cumsum(1)], 1)
        hair = strokes(size, curve, thick * rng.uniform(0.5, 1.2, hairs))
        dark = float(np.clip(patient.tone * 2 + rng.uniform(0.0, 0.9), 0.1, 1))
        canvas.smear(EVERYWHERE, (0.55 - 0.45 * dark, 0.42 - 0.36 * dark, 0.30 - 0.25 * dark), 0.75 * hair)


def photograph(rng: np.random.Generator, canvas: Canvas, *, backdrop: bool) -> np.ndarray:
    """Light and photograph the scene, optionally with a backdrop beyond the edge of the limb; uint8."""
    colour = lit(canvas)
    if backdrop:
        colour = _before_backdrop(rng, colour)
    return exposed(rng, colour, canvas.patient)


def lit(canvas: Canvas) -> np.ndarray:
    """Reflected light [3, S, S]: Beer-Lambert absorption, Lambert shading, Blinn-Phong highlights."""
    patient, size = canvas.patient, canvas.size
    absorbed = MELANIN[:, None, None] * canvas.melanin + BLOOD[:, None, None] * np.maximum(canvas.blood, 0)
    albedo = BARE[:, None, None] * np.exp(-absorbed) * (1 - canvas.cover) + canvas.paint

    level = np.pad(canvas.relief, 1, mode="edge") * np.float32(size / 2)
    down, right = level[2:, 1:-1] - level[:-2, 1:-1], level[1:-1, 2:] - level[1:-1, :-2]

    # The surface normal is (-dz/dx, -dz/dy, 1) / |.|; the shade n.l / l_z is 1 on flat skin.
    lx, ly = np.float32(np.cos(patient.azimuth)), np.float32(np.sin(patient.azimuth))
    facing = -(right * lx + down * ly)
    upright = 1 / np.sqrt(1 + right * right + down * down)
    lift = np.float32(1 / patient.elevation)
    shade = 0.35 + 0.65 * np.maximum((1 + facing * lift) * upright, 0)
    # Half vector between the light and the camera above; its z part dominates.
    half = np.array([lx, ly, patient.elevation + np.hypot(1, patient.elevation)], np.float32)
    glint = np.maximum((half[2] + facing) * upright * np.float32(1 / np.linalg.norm(half)), 0)
    for _ in range(5):
        glint = glint * glint
    axis = centres(size) - 0.5
    ramp = 1 + np.float32(patient.falloff) * (lx * axis[None, :] + ly * axis[:, None])
    return (albedo * shade + canvas.gloss * glint) * ramp


def _before_backdrop(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """End the limb at a curved edge, darker where it turns away, with cloth or a wall behind it."""
    size, axis = colour.shape[-1], centres(colour.shape[-1])
    angle, distance, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.28, 0.5), rng.uniform(-0.5, 0.6)
    u, v = axis[None, :] - np.float32(0.5), axis[:, None] - np.float32(0.5)
    ahead = np.cos(angle) * u + np.sin(angle) * v
    aside = np.cos(angle) * v - np.sin(angle) * u
    inside = (distance - ahead - bend * aside**2 + 0.006 * noise(rng, 6, size)).astype(np.float32)
    skin = np.clip(0.5 + inside * np.float32(120), 0, 1)
    turning = 1 - 0.45 * np.exp(np.maximum(inside, 0) * np.float32(-14))
    hue = np.exp(rng.normal(0, 0.12, 3)) * BACKDROPS[rng.integers(len(BACKDROPS))]
    folds = 1 + 0.12 * noise(rng, 3, size, across=8) + 0.05 * noise(rng, 128, size)
    shadow = 1 - 0.4 * np.exp(np.minimum(inside, 0) * np.float32(25))
    behind = np.clip(hue.astype(np.float32)[:, None, None] * (folds * shadow), 0, 1)
    return colour * turning * skin + behind * (1 - skin)


def exposed(rng: np.random.Generator, colour: np.ndarray, patient: Patient) -> np.ndarray:
    """Expose: vignette, white balance, contrast, blur (more in colour than in light), grain; uint8."""
    size = colour.shape[-1]
    axis = centres(size) - 0.5
    corner = 2 * (axis[None, :] ** 2 + axis[:, None] ** 2)
    gain = np.float32(patient.exposure) * (1 - patient.vignette * corner)
    colour = colour * gain * patient.cast[:, None, None]
    colour += np.float32(patient.contrast) * (colour - 0.5) * np.maximum(1 - colour, 0) * colour * 2
    over = np.maximum(colour - np.float32(0.72), 0)
    colour += over / (1 + 1.8 * over) - over  # highlights roll off instead of clipping
    light = colour.mean(0)
    picture = blurred(light, patient.blur) + blurred(colour - light, patient.blur + patient.chroma_blur)
    coloured = np.stack([noise(rng, 48, size) for _ in range(3)])
    picture += np.float32(patient.grain) * (noise(rng, 128, size) + np.float32(0.25) * coloured)
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
