// Keeps the page live: the server sends the parts that have changed as finished HTML.  Without this, the page is as it was loaded.
"use strict";
(() => {
  const where = document.body.dataset.events;
  const told = document.getElementById("live");
  if (!where || !told || !("EventSource" in window)) return;
  const asLoaded = told.textContent;
  let source = null;

  const begin = () => {
    if (source !== null) return;
    source = new EventSource(where);
    source.addEventListener("part", (event) => {
      const part = JSON.parse(event.data);
      const place = document.getElementById(part.id);
      // What somebody has the focus in, or is selecting, is left alone until they are done.
      if (place === null || place.contains(document.activeElement)) return;
      const selection = document.getSelection();
      if (selection !== null && !selection.isCollapsed && selection.containsNode(place, true)) return;
      place.innerHTML = part.html;
    });
    source.addEventListener("open", () => { told.textContent = "This page is kept up to date."; });
    source.addEventListener("error", () => {
      const over = source.readyState === EventSource.CLOSED;
      told.textContent = over ? asLoaded : "The connection to the proxy is lost: the figures are old. Connecting again.";
    });
  };
  const end = () => {
    if (source !== null) source.close();
    source = null;
  };
  // A page that nobody sees costs nothing.
  document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
  window.addEventListener("pagehide", end);
  window.addEventListener("pageshow", begin);
  if (!document.hidden) begin();
})();
