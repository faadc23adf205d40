// The page: choose, crop, check, show. Its data come from app.json, its texts from strings.en.js.

import { CANNOT_TELL, UNUSABLE, decide } from "./decision.js";
import { drawScale, mapColor, paint } from "./chart.js";
import { findFaults, measure } from "./gate.js";
import { Unusable, openPicture, pixelsAreTrue } from "./picture.js";
import { resize } from "./resize.js";
import { METRICS, TEXT, adopt, number } from "./strings.en.js";

const STEPS = ["start", "crop", "working", "result", "refused"];
const at = (id) => document.getElementById(id);
let app, scorer, picture, asked = 0;
let box = { left: 0, top: 0, side: 1 };

function fillTexts() {
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = TEXT[node.dataset.text];
  for (const node of document.querySelectorAll("[data-list]")) {
    node.replaceChildren(...TEXT[node.dataset.list].map((words) => make("li", words)));
  }
  at("view").setAttribute("aria-label", TEXT.crop_area);
}

function make(name, words) {
  const node = document.createElement(name);
  node.textContent = words;
  return node;
}

function show(step) {
  for (const id of STEPS) at(id).hidden = id !== step;
  at("status").hidden = !["start", "crop", "working"].includes(step);
  document.body.dataset.step = step;
  const heading = at(step).querySelector("h2[tabindex]");
  if (heading) heading.focus({ preventScroll: true }); // a screen reader continues from there
  if (step !== "start") window.scrollTo(0, 0);
}

function refuse(words) {
  at("refused-words").textContent = words;
  scorer?.worker.terminate();
  show("refused");
}

// Wraps the worker in promises: `ready` resolves after its self-test; each score has a promise of its own.
function startScorer() {
  const worker = new Worker("scorer.js", { type: "module" });
  const waiting = new Map();
  const ready = new Promise((resolve) => {
    worker.onmessage = ({ data }) => {
      if (data.type === "checked") at("status").textContent = TEXT.proving(data.done, data.of);
      else if (data.type === "ready") resolve(data.golden);
      else if (data.type === "refused") refuse(TEXT.refused.seal(data.off));
      else if (data.type === "failed" && data.id === undefined) refuse(TEXT.refused.failed(data.message));
      else if (data.type === "failed") refuse(TEXT.refused.score(data.message));
      else waiting.get(data.id)?.(data);
    };
    worker.onerror = (event) => refuse(TEXT.refused.failed(event.message ?? "worker"));
  });
  worker.postMessage({ type: "load", app });
  const score = (rgb) =>
    new Promise((resolve) => {
      waiting.set(++asked, resolve);
      worker.postMessage({ type: "score", id: asked, rgb });
    });
  return { worker, ready, score };
}

// Waits until all files are cached, so that the model is downloaded only once; returns whether they are.
async function keepOffline() {
  if (!("serviceWorker" in navigator)) return false;
  try {
    const registration = await navigator.serviceWorker.register("sw.js");
    const worker = registration.installing;
    if (!worker) return true;
    return await new Promise((resolve) => {
      worker.onstatechange = () => {
        if (worker.state === "activated" || worker.state === "installed") resolve(true);
        if (worker.state === "redundant") resolve(false);
      };
    });
  } catch {
    return false; // the page works, but will not open again offline
  }
}

async function begin() {
  fillTexts();
  at("status").textContent = TEXT.preparing;
  if (!pixelsAreTrue()) return refuse(TEXT.refused.pixels);
  try {
    app = await (await fetch("app.json")).json();
  } catch (error) {
    return refuse(TEXT.refused.failed(error.message));
  }
  adopt(app);
  fillTexts();
  at("hole").hidden = !app.mim_size;
  if (app.mim_size) at("hole").style.inset = `${(100 * app.offset[0]) / app.mim_size}%`;
  at("notice").textContent = app.notice;
  at("notice").hidden = !app.notice;
  show("start");
  const kept = await keepOffline();
  scorer = startScorer();
  const golden = await scorer.ready;
  document.body.dataset.golden = JSON.stringify(golden); // for tests, which compare all digits
  at("status").textContent = kept ? TEXT.ready : TEXT.ready_online;
}

// ---- choosing and cropping

async function choose(input) {
  const [file] = input.files;
  input.value = ""; // so that the same file can be chosen again
  if (!file) return;
  picture = undefined;
  try {
    picture = await openPicture(file);
  } catch (error) {
    if (!(error instanceof Unusable)) throw error;
    return showUnusable([sentence(error.reason, error.values)]);
  }
  const side = Math.min(picture.width, picture.height);
  box = { left: (picture.width - side) / 2, top: (picture.height - side) / 2, side };
  at("zoom").value = 0;
  at("zoom").disabled = side <= app.least_side;
  show("crop");
  drawCrop();
}

// Limits the zoom, so that the picture is not enlarged for the model and the square is not too small.
function zoomTo(share) {
  const whole = Math.min(picture.width, picture.height);
  const closest = Math.min(Math.max(app.least_side, Math.min(app.image_size, whole)), whole);
  const side = whole * (closest / whole) ** share;
  moveTo(box.left + (box.side - side) / 2, box.top + (box.side - side) / 2, side);
}

function moveTo(left, top, side) {
  const inside = (value, length) => Math.min(Math.max(value, 0), length - side);
  box = { left: inside(left, picture.width), top: inside(top, picture.height), side };
  drawCrop();
}

function drawCrop() {
  const canvas = at("view"), context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture.bitmap, box.left, box.top, box.side, box.side, 0, 0, canvas.width, canvas.height);
}

function zoomBy(step) {
  at("zoom").value = Number(at("zoom").value) + step;
  zoomTo(at("zoom").value / 100);
}

function listenToCrop() {
  const view = at("view"), fingers = new Map();
  const shift = (x, y) => moveTo(box.left + x * box.side, box.top + y * box.side, box.side);
  at("zoom").oninput = () => zoomTo(at("zoom").value / 100);
  view.onkeydown = (event) => {
    const step = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, -0.05], ArrowDown: [0, 0.05] }[event.key];
    if (step) shift(...step);
    else if (event.key === "+" || event.key === "=") zoomBy(5);
    else if (event.key === "-") zoomBy(-5);
    else return;
    event.preventDefault();
  };
  const distance = () => {
    const [one, other] = [...fingers.values()];
    return Math.hypot(one.x - other.x, one.y - other.y);
  };
  view.onpointerdown = (event) => {
    view.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  };
  view.onpointermove = (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const apart = fingers.size === 2 ? distance() : 0;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const wide = view.clientWidth;
    if (fingers.size === 1) shift((before.x - event.clientX) / wide, (before.y - event.clientY) / wide);
    if (fingers.size === 2) zoomBy((100 * (distance() - apart)) / wide);
  };
  view.onpointerup = view.onpointercancel = (event) => fingers.delete(event.pointerId);
  view.onwheel = (event) => {
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 4 : -4);
  };
}

// ---- checking

async function check() {
  const side = Math.round(box.side);
  if (side < app.least_side) return showUnusable([sentence("too_small", { side, least: app.least_side })]);
  const limits = app.gate;
  const found = measure(resize(picture, box, limits.SIDE), limits.SIDE, limits);
  const faults = findFaults(found, limits);
  if (faults.length) return showUnusable(faults.map((name) => sentence(name, { ...found, limits })));
  show("working");
  await started;
  const rgb = resize(picture, box, app.image_size);
  const scored = await scorer.score(rgb);
  showResult(rgb, scored);
}

function sentence(reason, values) {
  const words = TEXT.reasons[reason];
  return typeof words === "function" ? words(values) : words;
}

// ---- showing

function showDecision(decision, words) {
  at("result").dataset.decision = decision;
  at("heading").textContent = (app.notice && TEXT.drawn[decision]) || TEXT.decisions[decision].heading;
  at("words").replaceChildren(...words.filter(Boolean).map((each) => make("p", each)));
  at("measured").hidden = decision === UNUSABLE;
  at("print").hidden = decision === UNUSABLE;
  at("back").hidden = decision !== UNUSABLE || !picture;
  show("result");
}

function showUnusable(reasons) {
  showDecision(UNUSABLE, [...reasons, ...TEXT.decisions[UNUSABLE].words]);
}

function showResult(rgb, scored) {
  const similarities = Object.fromEntries(app.metrics.map((name, k) => [name, scored.similarities[k]]));
  const score = similarities[app.metric], calibration = app.calibration;
  const { decision, pValue, why } = decide(score, calibration);
  const words = [TEXT.why[why], ...(app.notice ? TEXT.drawn.words : TEXT.decisions[decision].words)];
  if (calibration && decision !== CANNOT_TELL && !app.notice) {
    const plain = calibration.rule === "calibrated";
    words.push(plain ? TEXT.missed(calibration.miss_rate, calibration.positive) : calibration.promise);
  }
  if (app.evaluated) words.push(TEXT.accuracy(app.evaluated), TEXT.unseparated(app.evaluated));
  showDecision(decision, words);
  if (decision === UNUSABLE) return;
  drawResult(rgb, scored, score);
  showNumbers(similarities, pValue, scored.seconds);
}

const pixel = (bytes) => (i) => bytes.subarray(3 * i, 3 * i + 3);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// MIM's image may be smaller than the picture.
function drawInpainting(rgb, { inpainted, map }) {
  const side = app.image_size, small = app.mim_size;
  const [top, left] = app.offset.map((first) => first - app.margin), wide = app.mask_size + 2 * app.margin;
  const hidden = (i) => {
    const y = (Math.floor(i / side) * small) / side - top, x = ((i % side) * small) / side - left;
    return y >= 0 && y < wide && x >= 0 && x < wide;
  };
  paint(at("masked"), side, (i) => (hidden(i) ? [255, 255, 255] : pixel(rgb)(i)));
  paint(at("inpainted"), small, pixel(inpainted));
  paint(at("map"), small, (i) => mapColor(map[i]));
  at("map").setAttribute("aria-label", TEXT.map_alt(mean(map)));
}

function drawResult(rgb, scored, score) {
  const { calibration } = app;
  for (const id of ["masked", "inpainted", "map", "unlikeness"]) {
    at(id).parentElement.hidden = id === "masked" ? !app.mim_size : !app.outputs.includes(id);
  }
  for (const id of ["original", "masked", "inpainted"]) at(id).setAttribute("aria-label", TEXT[id]);
  paint(at("original"), app.image_size, pixel(rgb));
  if (app.mim_size) drawInpainting(rgb, scored);
  if (scored.unlikeness) {
    paint(at("unlikeness"), app.image_size, (i) => mapColor(1 - scored.unlikeness[i])); // bright = different, as in the other map
    at("unlikeness").setAttribute("aria-label", TEXT.unlikeness_alt(mean(scored.unlikeness)));
  }
  const scores = (calibration?.scores ?? []).flat(), lower = calibration?.lower ?? NaN, upper = calibration?.upper ?? NaN;
  at("scale").replaceChildren(drawScale({ score, scores, lower, upper, text: TEXT }));
  at("scale").setAttribute("aria-label", TEXT.scale_alt(number(score), number(lower), Number.isFinite(upper) && number(upper)));
  at("scale-caption").textContent = scores.length
    ? TEXT.scale_caption(number(score), scores.length, calibration.positive)
    : TEXT.scale_caption_none(number(score));
}

function showNumbers(similarities, pValue, seconds) {
  const table = document.createElement("table");
  table.append(make("caption", TEXT.similarities));
  for (const [name, value] of Object.entries(similarities)) {
    const row = table.insertRow();
    const head = make("th", METRICS[name]);
    head.scope = "row";
    row.append(head, make("td", number(value)));
  }
  const { calibration } = app;
  const words = [
    pValue === null ? "" : TEXT.p_value(pValue, calibration.scores.flat().length),
    calibration?.origin, calibration?.promise, calibration?.band,
    TEXT.seconds(seconds), TEXT.version(app),
  ];
  at("numbers").replaceChildren(table, ...words.filter(Boolean).map((each) => make("p", each)));
}

for (const id of ["take", "choose"]) at(id).onchange = () => choose(at(id));
for (const button of document.querySelectorAll(".again")) {
  button.onclick = () => {
    show("start");
    at("take").focus({ preventScroll: true });
    window.scrollTo(0, 0);
  };
}
at("back").onclick = () => show("crop");
at("check").onclick = check;
at("print").onclick = () => window.print();
listenToCrop();
const started = begin();
