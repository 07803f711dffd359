// The list of images: sending them, showing how far they are, cancelling and retrying.

import * as api from "/static/api.js";
import { isVideo, thumbnail } from "/static/files.js";
import { duration, problem, text, translate } from "/static/i18n.js";

const MOST_OPEN = 8; // jobs of this page at the server at once; the others wait here
const SECONDS_BETWEEN_QUESTIONS = 5; // whatever happens to the events
const FINISHED = ["done", "failed", "cancelled"];

const list = document.getElementById("items");
const template = document.getElementById("item");
const live = document.getElementById("live");

let stopListening = null;
const latest = new Map(); // by id: also of jobs whose upload is not answered yet
export const items = [];
let mostOpen = MOST_OPEN, mostBytes = Infinity, onCompare = () => {}, onChange = () => {};

export function start({ limits, compare, change }) {
  mostOpen = Math.min(MOST_OPEN, limits.jobs_per_client);
  mostBytes = limits.upload_bytes;
  [onCompare, onChange] = [compare, change];
  setInterval(ask, 1000 * SECONDS_BETWEEN_QUESTIONS);
  setInterval(keepResults, 1000 * Math.min(60, limits.keep_seconds / 3));
}

export function add(files, options) {
  for (const { file, name } of files) {
    const item = { file, name, options: { ...options, name: name.slice(-255) }, state: "queued", progress: 0 };
    item.element = draw(item);
    items.push(item);
    list.append(item.element);
    if (file.size > mostBytes) fail(item, { code: "tooLarge", values: { size: `${Math.round(mostBytes / 2 ** 20)} MiB` } });
  }
  update();
  pump();
}

export function clear() {
  for (const item of [...items]) discard(item);
}

export const isFinished = (item) => FINISHED.includes(item.state);
export const isComparable = (item) => item.state === "done";

// Send the next files, as many as the server should have at once.
function pump() {
  const open = items.filter((item) => !isFinished(item) && item.state !== "queued").length;
  for (const item of items.filter((item) => item.state === "queued").slice(0, mostOpen - open)) upload(item);
}

async function upload(item) {
  item.state = "uploading";
  item.abort = new AbortController();
  const onProgress = (part) => { item.sent = part; show(item); };
  const { status, answer, retryAfter } = await api.send(item.file, item.options, onProgress, item.abort.signal);
  if (item.isGone || item.state !== "uploading") { // cancelled meanwhile
    if (answer?.id) api.remove(answer.id);
    return;
  }
  if (status === 202) {
    item.id = answer.id;
    onStatus(latest.get(item.id) ?? answer); // events overtake answers
  } else if (status === 429 || status === 503) {
    setTimeout(() => { if (item.state === "uploading") upload(item); }, retryAfter * 1000);
  } else {
    fail(item, status ? answer ?? {} : { code: "offline" });
  }
}

function onStatus(status) {
  latest.set(status.id, status);
  const item = items.find((item) => item.id === status.id);
  if (!item || isFinished(item)) return; // a late event of a cancelled job
  Object.assign(item, status, { name: item.name, resultName: status.name, receivedAt: performance.now() });
  if (status.error) item.problem = { detail: status.error, code: status.error_code, values: status.error_values };
  if (isFinished(item)) finish(item);
  update();
}

function finish(item) {
  const words = { name: item.name, error: item.problem && problem(item.problem) };
  if (item.state !== "cancelled") live.textContent = text(item.state === "done" ? "announceDone" : "announceFailed", words);
  if (item.state === "done" && !item.thumbnail && !isVideo(item.file)) {
    const image = Object.assign(new Image(), { src: api.previewUrl(item.id, "after"), alt: "" });
    item.element.querySelector(".thumb").replaceChildren(image);
  }
  pump();
}

function fail(item, problem) {
  Object.assign(item, { state: "failed", problem });
  finish(item);
  update();
}

// Ask about all open jobs at once; those that the server does not know any more are lost.
async function ask() {
  const asked = items.filter((item) => item.id && !isFinished(item));
  const known = asked.length ? await api.statuses().catch(() => null) : null;
  if (!known) return;
  known.forEach(onStatus);
  const ids = new Set(known.map(({ id }) => id));
  for (const item of asked) if (!ids.has(item.id) && !isFinished(item)) fail(item, { code: "restarted" });
}

// A browser has six connections to a server for all its pages; those without open jobs leave them to others.
function listenWhileBusy() {
  const isBusy = items.some((item) => !isFinished(item));
  if (isBusy) stopListening ??= api.listen(onStatus, ask);
  else stopListening = stopListening?.(); // undefined
}

// Results that are asked about do not expire while this page is open.
function keepResults() {
  if (items.some(({ id }) => id)) api.statuses().catch(() => {});
}

function discard(item) {
  item.isGone = true;
  item.abort?.abort();
  if (item.id) api.remove(item.id);
  items.splice(items.indexOf(item), 1);
  const focus = item.element.nextElementSibling ?? item.element.previousElementSibling;
  const hadFocus = item.element.contains(document.activeElement);
  item.element.remove();
  if (hadFocus) (focus?.querySelector(".remove") ?? document.getElementById("choose-files")).focus();
  update();
  pump();
}

function cancel(item) {
  if (isFinished(item)) return discard(item);
  item.abort?.abort();
  if (item.id) api.remove(item.id);
  item.state = "cancelled";
  update();
  pump();
}

function retry(item) {
  if (item.id) api.remove(item.id);
  Object.assign(item, { state: "queued", id: undefined, progress: 0, problem: null, seconds_left: null });
  update();
  pump();
}

function draw(item) {
  const element = template.content.firstElementChild.cloneNode(true);
  translate(element);
  element.querySelector(".name").textContent = element.querySelector(".name").title = item.name;
  element.querySelector(".thumb").addEventListener("click", () => onCompare(item));
  element.querySelector(".compare-button").addEventListener("click", () => onCompare(item));
  element.querySelector(".retry").addEventListener("click", () => retry(item));
  element.querySelector(".remove").addEventListener("click", () => cancel(item));
  thumbnail(item.file).then((image) => {
    item.thumbnail = image;
    if (image) element.querySelector(".thumb").replaceChildren(image);
  });
  return element;
}

// What is done, 0 to 1: as the server says, and between its reports as the time goes by.
function progressOf(item) {
  if (item.state === "done") return 1;
  if (item.state !== "running") return 0;
  const since = (performance.now() - item.receivedAt) / 1000, left = item.seconds_left;
  const taken = item.runningSince ? (performance.now() - item.runningSince) / 1000 : 0;
  const guess = left == null ? 1 - 1 / (1 + taken / 3) : taken / (taken + Math.max(left - since, 0.05));
  item.shown = Math.max(item.shown ?? 0, Math.min(guess, 0.97));
  return item.shown;
}

function stateWords(item) {
  if (item.state === "uploading") return text("uploading", { percent: Math.round(100 * (item.sent ?? 0)) });
  if (item.state === "waiting") return item.ahead ? text("waiting", { ahead: item.ahead }) : text("next");
  if (item.state === "failed") return problem(item.problem);
  if (item.state === "done") return text("done", { time: duration(item.seconds) });
  if (item.state === "running" && item.seconds_left != null) {
    return `${text("running")} · ${text("left", { time: duration(Math.max(1, Math.round(secondsLeft(item)))) })}`;
  }
  return text(item.state);
}

const secondsLeft = (item) => Math.max(0, item.seconds_left - (performance.now() - item.receivedAt) / 1000);

function show(item) {
  const { element, state } = item, $ = (selector) => element.querySelector(selector);
  if (state === "running") item.runningSince ??= performance.now();
  else item.runningSince = item.shown = undefined;
  const percent = Math.round(100 * progressOf(item));
  element.dataset.state = state;
  $(".fill").style.width = `${percent}%`;
  $(".track").setAttribute("aria-valuenow", percent);
  $(".track").setAttribute("aria-label", item.name);
  $(".sizes").textContent = sizesOf(item);
  $(".state").textContent = stateWords(item);
  $(".thumb").disabled = $(".compare-button").hidden = state !== "done";
  if (state === "done") $(".thumb").disabled = false;
  $(".download").hidden = state !== "done";
  $(".download").href = item.id ? api.resultUrl(item.id) : "";
  $(".retry").hidden = !["failed", "cancelled"].includes(state);
  label(item, { ".thumb": "compareOf", ".compare-button": "compareOf", ".download": "downloadOf", ".retry": "retryOf" });
  label(item, { ".remove": isFinished(item) ? "remove" : "cancel" });
}

function label(item, keys) {
  for (const [selector, key] of Object.entries(keys)) {
    item.element.querySelector(selector).setAttribute("aria-label", text(key, { name: item.name }));
  }
}

export function sizesOf({ width, height, result_width, result_height, frames }) {
  if (!result_width) return "";
  return `${width}×${height} → ${result_width}×${result_height}${frames > 1 ? ` · ${frames} ▸` : ""}`;
}

// Draw everything again, also in another language.
export function update() {
  listenWhileBusy();
  for (const item of items) show(item);
  onChange();
}

export function translateItems() {
  for (const { element } of items) translate(element);
  update();
}

setInterval(() => items.filter((item) => item.state === "running").forEach(show), 200);
