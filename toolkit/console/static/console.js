// Every page works without this file; it keeps pages live, and prevents double submissions.
(() => {
  "use strict";

  const isOpenState = (name, node) => name === "open" && node.nodeName === "DETAILS";

  htmx.defineExtension("morph", {
    isInlineSwap: () => false,
    handleSwap: (style, target, fragment) =>
      style === "morph" &&
      Idiomorph.morph(target, fragment.children, {
        morphStyle: "innerHTML",
        // Details that the reader has opened or closed stay so.
        callbacks: { beforeAttributeUpdated: (name, node) => !isOpenState(name, node) },
      }),
  });

  const live = () => document.querySelectorAll("[data-live]");
  const pause = document.getElementById("pause");
  const silence = document.getElementById("silence");
  const isPaused = () => pause?.getAttribute("aria-pressed") === "true";
  const refresh = () => live().forEach((each) => htmx.trigger(each, "refresh"));

  if (pause) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      pause.setAttribute("aria-pressed", String(!isPaused()));
      if (!isPaused()) refresh();
    });
  }
  document.addEventListener("visibilitychange", () => document.hidden || refresh());

  document.addEventListener("htmx:beforeRequest", (event) => {
    if ("live" in event.target.dataset && (document.hidden || isPaused())) event.preventDefault();
  });
  document.addEventListener("htmx:configRequest", (event) => {
    const seen = event.target.dataset.seen;
    if (seen) event.detail.headers["If-None-Match"] = seen;
  });
  // Set before the swap, so that the stored ETag is always that of the shown content.
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    const seen = event.detail.xhr.getResponseHeader("ETag");
    if (seen) event.target.dataset.seen = seen;
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const status = event.detail.xhr?.status ?? 0;
    if (silence) silence.hidden = status >= 200 && status < 400;
    if (status === 401) location.reload(); // the session has ended
    // A finished job does not change any more.
    if (event.detail.xhr?.getResponseHeader("X-Final")) event.target.removeAttribute("hx-trigger"), htmx.process(event.target);
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "yes";
    form.querySelectorAll("button").forEach((button) => button.setAttribute("aria-disabled", "true"));
  });
  window.addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-sent]").forEach((form) => {
      delete form.dataset.sent;
      form.querySelectorAll("button").forEach((button) => button.removeAttribute("aria-disabled"));
    });
  });
})();
