// What the user chooses: model, size and format. Remembered by the browser.

import { text } from "/static/i18n.js";

const $ = (id) => document.getElementById(id);
const LOSSY = ["", "jpg", "webp", "avif"];
const SCALES = [2, 3, 4];
const AUTO = { name: "", title: "auto", hint: "autoHint" };
const TITLES = {
  "esc-small-real": ["realWorld", "realWorldHint"],
  "esc-nano-real": ["noisy", "noisyHint"],
}; // other models show their names

let choices = [AUTO];

// Offer the server's models: those behind the automatic choice as one, the others by what they are good for.
export function offer(models) {
  choices = [AUTO];
  for (const model of models) {
    if (["esc-nano", "esc-nano-lte"].includes(model.name) || model.name.endsWith("-mse")) continue;
    const [title, hint] = TITLES[model.name] ?? [];
    choices.push({ ...model, title, hint });
  }
  show(restore());
}

// Draw the choices again, in the language of the page.
export function show(chosen = current()) {
  $("models").replaceChildren(...choices.map((choice) => card(choice, chosen.model)));
  showSizes(chosen.size);
  showFields();
}

const wordsOf = (choice) => [choice.title ? text(choice.title) : choice.name, choice.hint ? text(choice.hint) : choice.good_for];

function card(choice, chosen) {
  const label = document.createElement("label");
  label.className = "choice";
  label.append(radio("model", choice.name, choice.name === chosen));
  for (const [tag, words] of [["strong", 0], ["span", 1]]) {
    label.append(Object.assign(document.createElement(tag), { textContent: wordsOf(choice)[words] }));
  }
  return label;
}

function radio(name, value, checked) {
  return Object.assign(document.createElement("input"), { type: "radio", name, value, checked });
}

function showSizes(wanted) {
  const sizes = SCALES.map((scale) => [String(scale), `×${scale}`]);
  sizes.push(["other", text("other")], ["fit", text("fitIn")]);
  const value = sizes.some(([size]) => size === wanted) ? wanted : sizes[0][0];
  $("sizes").replaceChildren(...sizes.map(([size, words]) => {
    const label = document.createElement("label");
    label.append(radio("size", size, size === value), words);
    return label;
  }));
}

function showFields() {
  const { model, size, format } = current();
  $("fidelity-field").hidden = !choices.find((choice) => choice.name === model)?.fidelity;
  $("fidelity-value").textContent = $("fidelity").value;
  $("scale-field").hidden = size !== "other";
  $("size-fields").hidden = size !== "fit";
  $("quality-field").hidden = !LOSSY.includes(format);
  $("quality-value").textContent = $("quality").value;
}

function current() {
  const form = new FormData($("settings"));
  return { model: form.get("model") ?? "", size: form.get("size"), format: $("format").value };
}

// The options of the API.
export function options() {
  const { model, size, format } = current();
  const chosen = { model, format, quality: $("quality").value };
  if (!$("fidelity-field").hidden) chosen.fidelity = $("fidelity").value;
  if (size === "other") chosen.scale = $("scale").value;
  else if (size !== "fit") chosen.scale = size;
  else Object.assign(chosen, { width: $("width").value, height: $("height").value, exact: $("exact").checked || "" });
  return Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== ""));
}

const FIELDS = ["fidelity", "scale", "width", "height", "format", "quality"];

function remember() {
  const fields = Object.fromEntries(FIELDS.map((id) => [id, $(id).value]));
  localStorage.setItem("settings", JSON.stringify({ ...current(), fields }));
}

function restore() {
  const { fields = {}, ...chosen } = JSON.parse(localStorage.getItem("settings") ?? "{}");
  for (const id of FIELDS) if (fields[id]) $(id).value = fields[id];
  return { model: choices.some((choice) => choice.name === chosen.model) ? chosen.model : "", size: chosen.size };
}

$("settings").addEventListener("submit", (event) => event.preventDefault());
$("settings").addEventListener("input", (event) => {
  showFields();
  remember();
});
