// What htmx leaves to do. Every page works without this file; it only keeps pages fresh, and clicks single.
(() => {
  "use strict";

  const isOpenState = (name, node) => name === "open" && node.nodeName === "DETAILS";

  htmx.defineExtension("morph", {
    isInlineSwap: () => false,
    handleSwap: (style, target, fragment) =>
      style === "morph" &&
      Idiomorph.morph(target, fragment.children, {
        morphStyle: "innerHTML",
        // What a reader has opened or closed stays so.
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
  // Before the swap, so that what is shown and what is known to be shown never differ.
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    const seen = event.detail.xhr.getResponseHeader("ETag");
    if (seen) event.target.dataset.seen = seen;
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const answer = event.detail.xhr?.status ?? 0;
    if (silence) silence.hidden = answer >= 200 && answer < 400;
    if (answer === 401) location.reload(); // signed out meanwhile
    // A job that is done, say, has nothing new to tell.
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
