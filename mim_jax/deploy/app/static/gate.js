// The input gate: is this picture a usable photograph of skin? As in mim_jax/data/quality.py, which explains the
// measures; `limits` are its constants, passed on in app.json.

// Measures lit, burnt, sharpness, skin and flat of a square of RGB bytes.
export function measure(rgb, side, limits) {
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
    if (luma[i] > limits.LIGHT) lit++;
    if (cb >= limits.CB[0] && cb <= limits.CB[1] && cr >= limits.CR[0] && cr <= limits.CR[1]) skin++;
    if (inner(y) && inner(x) && Math.min(red, green, blue) >= limits.WHITE) burnt++;
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

// Returns the names of the faults found; TEXT.reasons has a sentence for each.
export function findFaults(found, limits) {
  const faults = {
    screenshot: found.flat > limits.MOST_FLAT && found.sharpness > limits.MOST_FLAT_SHARPNESS,
    underexposed: found.lit < limits.LEAST_LIT,
    overexposed: found.burnt > limits.MOST_BURNT,
    blurred: found.sharpness < limits.LEAST_SHARPNESS,
    not_skin: found.skin < limits.LEAST_SKIN,
  };
  return Object.keys(faults).filter((name) => faults[name]);
}

function same(rgb, one, other) {
  return [0, 1, 2].every((channel) => rgb[3 * one + channel] === rgb[3 * other + channel]);
}

// The sum of the four neighbours minus four times the pixel, mirrored at the border as in abcb|abc.
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
