// Draws the score on a scale, with the calibration scores and the thresholds, as SVG.

import { number } from "./strings.en.js";

const WIDTH = 340, HEIGHT = 134, LEFT = 8, BASE = 96, TOP = 34, BINS = 20, LETTER = 6.8; // a letter is about this wide

function element(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

export function drawScale({ score, scores, lower, upper, text }) {
  const known = [score, ...scores, lower, upper].filter((value) => Number.isFinite(value));
  const spread = Math.max(...known) - Math.min(...known) || 0.1;
  const low = Math.min(...known) - 0.08 * spread, high = Math.max(...known) + 0.08 * spread;
  const place = (value) => LEFT + ((value - low) / (high - low)) * (WIDTH - 2 * LEFT);
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "scale", "aria-hidden": "true" });

  const counts = new Array(BINS).fill(0);
  for (const value of scores) counts[Math.min(Math.floor((BINS * (value - low)) / (high - low)), BINS - 1)]++;
  const most = Math.max(...counts, 1), wide = (WIDTH - 2 * LEFT) / BINS;
  counts.forEach((count, bin) => {
    const tall = ((BASE - TOP) * count) / most;
    if (count) svg.append(element("rect", { class: "bar", x: LEFT + bin * wide + 1, y: BASE - tall, width: wide - 2, height: tall }));
  });
  svg.append(element("line", { class: "axis", x1: LEFT, x2: WIDTH - LEFT, y1: BASE, y2: BASE }));

  // The threshold labels extend away from each other if there is room.
  const mark = (value, words, kind, y, wanted) => {
    if (!Number.isFinite(value)) return;
    const x = place(value), label = `${words} ${number(value, 3)}`;
    svg.append(element("line", { class: kind, x1: x, x2: x, y1: TOP, y2: y > BASE ? BASE + 6 : BASE }));
    const room = label.length * LETTER * (wanted === "middle" ? 0.5 : 1);
    const anchor = wanted !== "start" && x < room ? "start" : wanted !== "end" && x > WIDTH - room ? "end" : wanted;
    svg.append(element("text", { class: kind, x, y, "text-anchor": anchor }, label));
  };
  mark(lower, text.threshold, "limit", TOP - 19, Number.isFinite(upper) ? "end" : "middle");
  mark(upper, text.upper, "limit", TOP - 5, "start");
  mark(score, text.you, "you", BASE + 18, "middle");
  svg.append(element("text", { class: "ends", x: LEFT, y: HEIGHT - 6, "text-anchor": "start" }, `\u2190 ${text.fewer}`));
  svg.append(element("text", { class: "ends", x: WIDTH - LEFT, y: HEIGHT - 6, "text-anchor": "end" }, `${text.more} \u2192`));
  return svg;
}

// Paints a square canvas; `color(i)` gives the RGB of pixel i.
export function paint(canvas, side, color) {
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) image.data.set([...color(i), 255], 4 * i);
  context.putImageData(image, 0, 0);
}

// From dark blue (1) through grey to yellow (0 or less): readable with red-green colour blindness.
export function mapColor(value) {
  const share = Math.min(Math.max(1 - value, 0), 1);
  const stops = [[0, 32, 81], [124, 123, 120], [255, 233, 69]];
  const half = share < 0.5 ? 0 : 1, t = 2 * share - half;
  return stops[half].map((from, k) => Math.round(from + t * (stops[half + 1][k] - from)));
}
