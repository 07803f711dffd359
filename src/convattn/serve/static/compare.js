// Before and after, with a line between them that moves, and zoom in pixels of the screen.

import { previewUrl } from "/static/api.js";
import { isVideo } from "/static/files.js";
import { isComparable, items, sizesOf } from "/static/queue.js";
import { text } from "/static/i18n.js";

const $ = (selector) => document.querySelector(selector);
const dialog = $("#compare"), stage = $("#stage"), divider = $(".divider"), zooms = $("#zooms");
const [before, after] = [$(".layer.before"), $(".layer.after")];
const STEPS = [0.25, 0.5, 1, 2, 4, 8];

let item, size, zoom, x, y, line; // size in pixels of the result, x and y of its corner, line as a part of the stage
let drag = null;

export async function open(chosen) {
  item = chosen;
  $("#compare-name").textContent = item.name;
  $("#compare-size").textContent = sizesOf(item);
  $("#compare-download").href = `/v1/jobs/${item.id}/result`;
  size = [item.result_width, item.result_height];
  line = 0.5;
  if (!dialog.open) dialog.showModal();
  setZoom("fit");
  before.replaceChildren(await load("before"));
  after.replaceChildren(await load("after"));
  draw();
}

// An element that shows one side; the original comes from the disk where the browser can show it.
async function load(side) {
  const element = document.createElement(isVideo(item.file) ? "video" : "img");
  const source = side === "before" ? URL.createObjectURL(item.file) : previewUrl(item.id, side);
  if (element.tagName === "VIDEO") {
    Object.assign(element, { src: source, muted: true, loop: true, autoplay: true, playsInline: true });
    if (side === "after") element.addEventListener("timeupdate", () => follow(element));
    return element;
  }
  element.alt = text(side);
  element.src = source;
  await element.decode().catch(() => { element.src = previewUrl(item.id, side); });
  return element;
}

// Keep both videos at the same time.
function follow(video) {
  const other = before.firstElementChild;
  if (other && Math.abs(other.currentTime - video.currentTime) > 0.1) other.currentTime = video.currentTime;
}

// Pixels of the screen that a pixel of the result takes; 1 where it is sharp.
function setZoom(wanted, at = [stage.clientWidth / 2, stage.clientHeight / 2]) {
  const ratio = devicePixelRatio, [width, height] = size;
  const fit = Math.min((ratio * stage.clientWidth) / width, (ratio * stage.clientHeight) / height, 4);
  const old = zoom;
  zoom = wanted === "fit" ? fit : wanted;
  if (wanted === "fit") [x, y] = [(stage.clientWidth - (width * zoom) / ratio) / 2, (stage.clientHeight - (height * zoom) / ratio) / 2];
  else [x, y] = [at[0] - ((at[0] - x) * zoom) / old, at[1] - ((at[1] - y) * zoom) / old];
  for (const button of zooms.children) button.setAttribute("aria-pressed", button.dataset.zoom === String(wanted));
  stage.classList.toggle("is-enlarged", zoom > 1);
  draw();
}

function draw() {
  const ratio = devicePixelRatio, [width, height] = size.map((side) => (side * zoom) / ratio);
  const { left, top } = stage.getBoundingClientRect();
  const snap = (value, start) => Math.round((start + value) * ratio) / ratio - start; // whole pixels of the screen
  const keep = (value, side, room) => (side <= room ? (room - side) / 2 : Math.min(0, Math.max(room - side, value)));
  [x, y] = [snap(keep(x, width, stage.clientWidth), left), snap(keep(y, height, stage.clientHeight), top)];
  for (const element of [before.firstElementChild, after.firstElementChild]) {
    if (element) Object.assign(element.style, { width: `${width}px`, height: `${height}px`, left: `${x}px`, top: `${y}px` });
  }
  after.style.clipPath = `inset(0 0 0 ${100 * line}%)`;
  before.style.clipPath = `inset(0 ${100 * (1 - line)}% 0 0)`;
  divider.style.left = `${100 * line}%`;
  divider.setAttribute("aria-valuenow", Math.round(100 * line));
}

function moveLine(to) {
  line = Math.min(1, Math.max(0, to));
  draw();
}

function step(direction, at) {
  const next = direction > 0 ? STEPS.find((value) => value > zoom * 1.01) : STEPS.findLast((value) => value < zoom * 0.99);
  if (next) setZoom(next, at);
}

function next(direction) {
  const all = items.filter(isComparable), index = all.indexOf(item) + direction;
  if (all[index]) open(all[index]);
}

const KEYS = {
  ArrowLeft: () => moveLine(line - 0.02), ArrowRight: () => moveLine(line + 0.02),
  Home: () => moveLine(0), End: () => moveLine(1),
  "+": () => step(1), "=": () => step(1), "-": () => step(-1),
  0: () => setZoom("fit"), 1: () => setZoom(1), 2: () => setZoom(2), 4: () => setZoom(4),
  n: () => next(1), p: () => next(-1),
};

dialog.addEventListener("keydown", (event) => {
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
dialog.addEventListener("close", () => {
  if (before.firstElementChild?.src.startsWith("blob:")) URL.revokeObjectURL(before.firstElementChild.src);
  before.replaceChildren();
  after.replaceChildren();
});
stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  const fits = size.every((side, axis) => (side * zoom) / devicePixelRatio <= [stage.clientWidth, stage.clientHeight][axis]);
  const isLine = fits || event.target.closest(".divider");
  drag = { isLine, x: event.clientX - x, y: event.clientY - y };
  stage.classList.toggle("is-dragging", !isLine);
  if (isLine) moveLine((event.clientX - stage.getBoundingClientRect().left) / stage.clientWidth);
});
stage.addEventListener("pointermove", (event) => {
  if (!drag) return;
  if (drag.isLine) return moveLine((event.clientX - stage.getBoundingClientRect().left) / stage.clientWidth);
  [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
  draw();
});
for (const type of ["pointerup", "pointercancel"]) {
  stage.addEventListener(type, () => { drag = null; stage.classList.remove("is-dragging"); });
}
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { left, top } = stage.getBoundingClientRect();
  step(-event.deltaY, [event.clientX - left, event.clientY - top]);
}, { passive: false });
zooms.addEventListener("click", ({ target }) => {
  if (target.dataset.zoom) setZoom(target.dataset.zoom === "fit" ? "fit" : Number(target.dataset.zoom));
});
$("#compare-close").addEventListener("click", () => dialog.close());
new ResizeObserver(() => { if (dialog.open && size) setZoom(zooms.querySelector("[aria-pressed=true]")?.dataset.zoom === "fit" ? "fit" : zoom); }).observe(stage);
