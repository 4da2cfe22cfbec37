"use strict";
// Copies commands, and keeps the figures of the front page up to date while it is looked at. Nothing needs it.

const PERIOD_MS = 15000;
const SAID_MS = 2000;

for (const button of document.querySelectorAll(".copy")) {
  const text = button.closest(".command").querySelector("pre");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), SAID_MS);
    } catch {
      // Without a safe connection there is no clipboard: it is selected, to be copied by hand.
      getSelection().selectAllChildren(text);
    }
  });
}

const figures = document.getElementById("figures");

async function refresh() {
  if (document.visibilityState !== "visible") return;
  try {
    const answer = await fetch("/", { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("figures");
    if (fresh) figures.replaceChildren(...fresh.childNodes);
  } catch {
    // The relay may be starting anew; the next time will tell.
  }
}

if (figures) setInterval(refresh, PERIOD_MS);
