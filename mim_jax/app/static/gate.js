// Is this picture a usable photograph of skin? The measures and limits of mim_jax/data/gate.py, which explains them.

export const SIDE = 128; // pixels a side of what is measured
export const LIMITS = {
  LIGHT: 60, LEAST_LIT: 0.05, WHITE: 250, MOST_BURNT: 0.5, LEAST_SHARPNESS: 0.01,
  CB: [77, 140], CR: [131, 185], LEAST_SKIN: 0.2, MOST_FLAT: 0.1, MOST_FLAT_SHARPNESS: 1,
};

// lit, burnt, sharpness, skin and flat of a square of RGB bytes.
export function measure(rgb, side) {
  const count = side * side;
  const luma = new Float64Array(count);
  let lit = 0, skin = 0, burnt = 0, flat = 0;
  const edge = Math.floor(side / 4);
  const inner = (place) => place >= edge && place < side - edge;
  for (let i = 0; i < count; i++) {
    const red = rgb[3 * i], green = rgb[3 * i + 1], blue = rgb[3 * i + 2];
    luma[i] = (299 * red + 587 * green + 114 * blue) / 1000;
    const cb = 128 - 0.168736 * red - 0.331264 * green + 0.5 * blue;
    const cr = 128 + 0.5 * red - 0.418688 * green - 0.081312 * blue;
    const y = Math.floor(i / side), x = i % side;
    if (luma[i] > LIMITS.LIGHT) lit++;
    if (cb >= LIMITS.CB[0] && cb <= LIMITS.CB[1] && cr >= LIMITS.CR[0] && cr <= LIMITS.CR[1]) skin++;
    if (inner(y) && inner(x) && Math.min(red, green, blue) >= LIMITS.WHITE) burnt++;
    if (y < side - 1 && x < side - 1 && same(rgb, i, i + 1) && same(rgb, i, i + side)) flat++;
  }
  return {
    lit: lit / count,
    burnt: burnt / (side - 2 * edge) ** 2,
    sharpness: variance(laplacian(luma, side)) / (variance(luma) + 1),
    skin: skin / count,
    flat: flat / (side - 1) ** 2,
  };
}

// The faults' names; each has its sentence in the strings.
export function findFaults(found) {
  const faults = {
    screenshot: found.flat > LIMITS.MOST_FLAT && found.sharpness > LIMITS.MOST_FLAT_SHARPNESS,
    underexposed: found.lit < LIMITS.LEAST_LIT,
    overexposed: found.burnt > LIMITS.MOST_BURNT,
    blurred: found.sharpness < LIMITS.LEAST_SHARPNESS,
    not_skin: found.skin < LIMITS.LEAST_SKIN,
  };
  return Object.keys(faults).filter((name) => faults[name]);
}

function same(rgb, one, other) {
  return [0, 1, 2].every((channel) => rgb[3 * one + channel] === rgb[3 * other + channel]);
}

// The four neighbours less four times the pixel, mirrored at the border as in abcb|abc.
function laplacian(plane, side) {
  const mirrored = (place) => (place < 0 ? -place : place >= side ? 2 * side - 2 - place : place);
  const at = (y, x) => plane[mirrored(y) * side + mirrored(x)];
  return plane.map((value, i) => {
    const y = Math.floor(i / side), x = i % side;
    return at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1) - 4 * value;
  });
}

function variance(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
}
