// The page: files in, settings, and what belongs to all images together.

import * as api from "/static/api.js";
import { open as compare } from "/static/compare.js";
import { chosen, dropped } from "/static/files.js";
import { duration, otherLanguage, switchLanguage, text, useLanguage } from "/static/i18n.js";
import * as queue from "/static/queue.js";
import * as settings from "/static/settings.js";

const $ = (id) => document.getElementById(id);
const add = (files) => queue.add(files, settings.options());
let server;

async function start() {
  useTheme(localStorage.getItem("theme"));
  useLanguage();
  showLanguage();
  await logInByAddress();
  server = (await api.about()) ?? (await askForToken());
  settings.offer(server.models);
  queue.start({ limits: server, compare, change: showTotal });
  showServer();
  document.body.dataset.ready = "";
}

// The address that the server prints has the token behind a #; nobody else sees it there.
async function logInByAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", "/");
  await api.logIn(token);
}

function askForToken() {
  $("token-dialog").showModal();
  return new Promise((resolve) => {
    $("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
    $("token-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      if (await api.logIn($("token").value)) {
        $("token-dialog").close();
        return resolve(await api.about());
      }
      $("token").setCustomValidity(text("wrongToken"));
      $("token").reportValidity();
    });
    $("token").addEventListener("input", () => $("token").setCustomValidity(""));
  });
}

function showServer() {
  $("about").textContent = text("about", server);
  if (!["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)) {
    const minutes = Math.round(server.keep_seconds / 60);
    document.querySelector("[data-text=subheading]").textContent = text("subheadingRemote", { minutes });
  }
}

function showTotal() {
  const { items } = queue, total = items.length;
  document.body.classList.toggle("has-items", total > 0);
  $("bar").hidden = !total;
  const done = items.filter((item) => item.state === "done").length;
  const open = items.filter((item) => !queue.isFinished(item));
  const left = open.length ? timeLeft(open) : null;
  $("summary").textContent = text(left == null ? "summary" : "summaryLeft", { done, total, time: left == null ? "" : duration(left) });
  const percent = total ? Math.round((100 * (total - open.length)) / total) : 0;
  $("total").setAttribute("aria-valuenow", percent);
  $("total").firstElementChild.style.width = `${percent}%`;
  $("zip").setAttribute("aria-disabled", String(!done));
  if (done) $("zip").href = api.archiveUrl;
  else $("zip").removeAttribute("href");
}

// By what finished images took, and how many the server computes at once.
function timeLeft(open) {
  const seconds = queue.items.filter((item) => item.seconds).map((item) => item.seconds);
  if (!seconds.length) return null;
  const mean = seconds.reduce((sum, value) => sum + value, 0) / seconds.length;
  return Math.max(1, Math.round((open.length * mean) / Math.min(server.workers, open.length)));
}

function useTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function showLanguage() {
  const [name, code] = otherLanguage();
  Object.assign($("language"), { textContent: name, lang: code });
}

$("theme").addEventListener("click", () => {
  const isDark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", theme);
  useTheme(theme);
});
$("language").addEventListener("click", () => {
  switchLanguage();
  showLanguage();
  settings.show();
  queue.translateItems();
  showServer();
});
for (const id of ["files", "folder"]) {
  $(`choose-${id}`).addEventListener("click", () => $(id).click());
  $(id).addEventListener("change", ({ target }) => { add(chosen(target.files)); target.value = ""; });
}
$("example").addEventListener("click", async () => {
  const blob = await (await fetch("/static/example.png")).blob();
  add([{ file: new File([blob], "kitten.png", { type: blob.type }), name: "kitten.png" }]);
});
$("clear").addEventListener("click", queue.clear);

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => { if (hasFiles(event)) { event.preventDefault(); $("veil").hidden = false; } });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("veil").hidden = true; });
addEventListener("drop", async (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  $("veil").hidden = true;
  add(await dropped(event.dataTransfer));
});
addEventListener("paste", (event) => { if (event.clipboardData.files.length) add(chosen(event.clipboardData.files)); });

start();
