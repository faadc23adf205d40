// Pillow's bicubic reduction, bit for bit, because the model was trained on its results. Every browser scales with
// a different filter, which would change the score.
//
// Each axis separately, along rows first, each rounded to bytes. Weights of output position x, with s = side / size:
// w(k) = cubic((k + 0.5 - c) / max(s, 1)), c = left + (x + 0.5) s, normalised, in units of 2^-22.

const BITS = 22;
const SUPPORT = 2;

// Catmull-Rom, a = -0.5 (Keys, "Cubic convolution interpolation for digital image processing", 1981).
function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * -0.5;
  return 0;
}

// For each of `size` output positions: the first tap, and the weights of all taps.
function taps(begin, side, size, length) {
  const start = Math.fround(begin); // Pillow stores boxes in single precision
  const scale = Math.fround(Math.fround(begin + side) - start) / size;
  const stretch = Math.max(scale, 1), step = 1 / stretch;
  const support = SUPPORT * stretch;
  return Array.from({ length: size }, (_, place) => {
    const center = start + (place + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const count = Math.min(Math.trunc(center + support + 0.5), length) - first;
    const shares = Float64Array.from({ length: count }, (_, k) => cubic((k + first - center + 0.5) * step));
    const sum = shares.reduce((total, share) => total + share, 0);
    const weights = Int32Array.from(shares, (share) => {
      const weight = (sum === 0 ? share : share / sum) * (1 << BITS);
      return Math.trunc(weight + (weight < 0 ? -0.5 : 0.5));
    });
    return { first, weights };
  });
}

const byte = (sum) => Math.min(Math.max(sum >> BITS, 0), 255);
const HALF = 1 << (BITS - 1);

// Resizes the square `box` = {left, top, side} of a picture, with edges between pixels or on them, to `size` x `size`
// RGB bytes. `picture.read(x, y, width, height)` returns RGBA bytes; it is called for a few rows at a time, so that a
// large photograph is never in memory twice.
export function resize(picture, box, size, rowsAtOnce = 128) {
  const { width, height } = picture;
  const across = taps(box.left, box.side, size, width);
  const down = taps(box.top, box.side, size, height);
  const end = (list) => list[size - 1].first + list[size - 1].weights.length;
  const left = across[0].first, columns = end(across) - left;
  const top = down[0].first, rows = end(down) - top;
  const narrow = new Uint8Array(rows * size * 3);
  for (let begin = 0; begin < rows; begin += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - begin);
    const pixels = picture.read(left, top + begin, columns, count);
    for (let y = 0; y < count; y++) {
      for (let x = 0; x < size; x++) {
        const { first, weights } = across[x];
        for (let channel = 0; channel < 3; channel++) {
          let sum = HALF, at = 4 * (y * columns + first - left) + channel;
          for (let k = 0; k < weights.length; k++, at += 4) sum += pixels[at] * weights[k];
          narrow[3 * ((begin + y) * size + x) + channel] = byte(sum);
        }
      }
    }
  }
  const result = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const { first, weights } = down[y];
    for (let x = 0; x < 3 * size; x++) {
      let sum = HALF;
      for (let k = 0, at = (first - top) * 3 * size + x; k < weights.length; k++, at += 3 * size) {
        sum += narrow[at] * weights[k];
      }
      result[y * 3 * size + x] = byte(sum);
    }
  }
  return result;
}
