// All pages work without this: it adds buttons that copy, and keeps lists fresh while nobody is in the middle of one.
"use strict";

for (const box of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(box.querySelector("code").textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied: select the text";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  box.prepend(button);
}

const list = document.querySelector("[data-refresh]");
if (list) {
  const busy = () =>
    document.hidden || list.contains(document.activeElement) || list.querySelector("details[open]") ||
    !document.getSelection().isCollapsed;
  setInterval(async () => {
    if (busy()) return;
    try {
      const answer = await fetch(location.href, { redirect: "error" });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-refresh]");
      if (fresh && !busy()) list.replaceChildren(...fresh.childNodes);
    } catch {
      // Signed out, or the service is away: what is shown stays, and the next click tells.
    }
  }, 1000 * Number(list.dataset.refresh));
}
