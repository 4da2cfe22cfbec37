"use strict";
// Keeps the page up to date: asks for it again every few seconds while it is looked at, and puts the regions marked
// `data-live` of the answer in place of those shown. Everything works by links and forms without it.

const PERIOD_MS = 5000;
const TIMEOUT_MS = 15000;
const TYPING_MS = 250;

const live = document.getElementById("live");
const pauseButton = document.getElementById("pause");
const regions = [...document.querySelectorAll("[data-live][id]")];
let paused = false;
let asking = null;
let timer = 0;

function say(kind, text) {
  live.hidden = false;
  live.className = kind;
  if (live.textContent !== text) live.textContent = text;
}

function isBusy(region) {
  const selection = document.getSelection();
  const selected = selection && !selection.isCollapsed && region.contains(selection.anchorNode);
  // A chart that is being read stays as it is.
  return selected || region.querySelector(".pointer, .plot:focus");
}

function replace(region, fresh) {
  if (!fresh || isBusy(region) || region.innerHTML === fresh.innerHTML) return;
  const focused = region.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  region.replaceChildren(...fresh.childNodes);
  if (focused) [...region.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus();
}

async function refresh() {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  const limit = setTimeout(() => mine.abort(), TIMEOUT_MS);
  try {
    const answer = await fetch(location.href, { headers: { "X-Dash-Live": "1" }, signal: mine.signal });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const region of regions) replace(region, fresh.getElementById(region.id));
    // A search is answered while the page is paused, too; and a pause may come before the answer does.
    if (paused) say("paused", "Paused");
    else say("", "Live");
  } catch {
    if (asking !== mine) return;
    say("lost", paused ? "No answer" : "No answer; trying again");
  } finally {
    clearTimeout(limit);
    if (asking === mine) {
      asking = null;
      for (const region of regions) region.removeAttribute("aria-busy");
      schedule();
    }
  }
}

function schedule() {
  clearTimeout(timer);
  if (!paused && document.visibilityState === "visible") timer = setTimeout(refresh, PERIOD_MS);
}

function follow(form) {
  let typing = 0;
  const show = () => {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) query.append(name, value);
    history.replaceState(null, "", `${form.getAttribute("action")}?${query}`);
    for (const region of regions) region.setAttribute("aria-busy", "true");
    refresh();
  };
  for (const kind of ["input", "change"]) {
    form.addEventListener(kind, () => {
      clearTimeout(typing);
      typing = setTimeout(show, TYPING_MS);
    });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    show();
  });
}

if (live && regions.length) {
  say("", "Live");
  pauseButton.hidden = false;
  pauseButton.addEventListener("click", () => {
    paused = !paused;
    pauseButton.textContent = paused ? "Go on" : "Pause";
    if (!paused) return refresh();
    clearTimeout(timer);
    say("paused", "Paused");
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && !paused) refresh();
    else clearTimeout(timer);
  });
  document.querySelectorAll("form[data-live-form]").forEach(follow);
  schedule();
}

// What takes seconds to find out comes after the page.
async function load(region) {
  region.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(region.dataset.from, { headers: { "X-Dash-Live": "1" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(region.id);
    if (answer.ok && fresh) region.replaceChildren(...fresh.childNodes);
  } catch {
    // The link that the region had instead is still there.
  } finally {
    region.removeAttribute("aria-busy");
  }
}
document.querySelectorAll("[data-from][id]").forEach(load);

// A form that was sent says so, and is not sent twice. Coming back to the page makes it usable again.
document.querySelectorAll("form[method=post]").forEach((form) => {
  form.addEventListener("submit", (event) => {
    if (form.getAttribute("aria-busy")) return event.preventDefault();
    form.setAttribute("aria-busy", "true");
  });
});
window.addEventListener("pageshow", () => {
  document.querySelectorAll("form[aria-busy]").forEach((form) => form.removeAttribute("aria-busy"));
});
