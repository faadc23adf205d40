// Opens a chosen file as a picture whose pixels can be read, or gives the reason why it cannot.

const MOST_BYTES = 64 * 2 ** 20;
const MOST_PIXELS = 50e6;

export class Unusable extends Error {
  constructor(reason, values = {}) {
    super(reason);
    this.reason = reason; // key in TEXT.reasons
    this.values = values;
  }
}

export async function openPicture(file) {
  if (file.size === 0) throw new Unusable("empty_file");
  if (file.size > MOST_BYTES) throw new Unusable("large_file");
  if (severalFrames(new Uint8Array(await file.slice(0, 65536).arrayBuffer()))) throw new Unusable("several_frames");
  let bitmap;
  try {
    // Turned upright by its EXIF orientation; colours as stored, because the model was trained on those.
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Unusable("not_a_picture");
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new Unusable("too_many_pixels", { width, height });
  return { width, height, bitmap, read: reader(bitmap) };
}

// Returns a function that reads a part of a bitmap as RGBA, with transparent pixels on white.
function reader(bitmap) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  return (left, top, width, height) => {
    canvas.width = width;
    canvas.height = height;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  };
}

// Some browsers change the pixels that a page reads, against fingerprinting. Every score would be wrong.
export function pixelsAreTrue() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 32;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(32, 32);
  for (let i = 0; i < image.data.length; i++) image.data[i] = i % 4 === 3 ? 255 : (i * 37) % 251;
  context.putImageData(image, 0, 0);
  const read = context.getImageData(0, 0, 32, 32).data;
  return image.data.every((value, i) => value === read[i]);
}

// Whether a file is a GIF, or animated by its header: WebP with the animation flag, PNG with an acTL chunk.
function severalFrames(bytes) {
  const text = (start, end) => String.fromCharCode(...bytes.subarray(start, end));
  if (text(0, 4) === "GIF8") return true;
  if (text(8, 16) === "WEBPVP8X") return (bytes[20] & 2) !== 0;
  if (text(1, 4) !== "PNG") return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let at = 8; at + 8 <= bytes.length; at += 12 + view.getUint32(at)) {
    const chunk = text(at + 4, at + 8);
    if (chunk === "acTL") return true;
    if (chunk === "IDAT") return false;
  }
  return false;
}
