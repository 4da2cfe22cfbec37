"use strict";
// The values under the pointer of a chart, or at the place that the arrow keys have come to. The chart itself comes from
// the server, drawn, with every value in words.

const SVG = "http://www.w3.org/2000/svg";
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);

let shown = null;

function when(seconds) {
  // "Fri, 27 Nov 2026 15:00:00 GMT", in every browser.
  const [day, date, month, , time] = new Date(seconds * 1000).toUTCString().split(" ");
  return `${day.replace(",", "")} ${date} ${month} ${time.slice(0, 5)} UTC`;
}

function paragraph(text, name) {
  const made = document.createElement("p");
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function hide() {
  shown?.plot.querySelector(".pointer")?.remove();
  shown = null;
  tip.hidden = true;
}

function show(plot, place) {
  if (shown?.plot !== plot) hide();
  const { start, step, places } = plot.dataset;
  const at = Math.min(Math.max(place, 0), places - 1);
  const lines = plot.querySelector(".lines");
  let pointer = plot.querySelector(".pointer");
  if (!pointer) {
    pointer = document.createElementNS(SVG, "line");
    pointer.setAttribute("class", "pointer");
    pointer.setAttribute("y1", "0");
    pointer.setAttribute("y2", "1000");
    lines.append(pointer);
  }
  pointer.setAttribute("x1", at);
  pointer.setAttribute("x2", at);
  const rows = [...lines.querySelectorAll("path[data-values]")].map((path) => {
    const value = path.dataset.values.split("|")[at];
    return paragraph(`${path.dataset.name} ${value || "not known"}`, path.getAttribute("class"));
  });
  tip.replaceChildren(paragraph(when(Number(start) + at * step)), ...rows);
  tip.hidden = false;
  const box = lines.getBoundingClientRect();
  const x = box.left + (box.width * at) / (places - 1);
  const left = x + 12 + tip.offsetWidth < document.documentElement.clientWidth ? x + 12 : Math.max(4, x - 12 - tip.offsetWidth);
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${box.top + scrollY + 8}px`;
  shown = { plot, place: at };
}

function follow(event) {
  const plot = event.target.closest?.(".plot");
  if (!plot) return hide();
  const box = plot.querySelector(".lines").getBoundingClientRect();
  const part = (event.clientX - box.left) / box.width;
  if (part < 0 || part > 1) return hide();
  show(plot, Math.round(part * (plot.dataset.places - 1)));
}

document.addEventListener("pointermove", follow);
document.addEventListener("pointerdown", follow);
document.addEventListener("focusout", hide);
document.addEventListener("keydown", (event) => {
  const plot = event.target.closest?.(".plot");
  if (!plot) return;
  if (event.key === "Escape") return hide();
  const last = plot.dataset.places - 1;
  const from = shown?.plot === plot ? shown.place : last + 1;
  const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  show(plot, to);
});
