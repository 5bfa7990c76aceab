/* A click on a diagram shows it large, in a frame that scrolls; another click fits it into the page again. */
document.addEventListener("click", (event) => {
  const diagram = event.target.closest("div.mermaid");
  if (!diagram) return;
  if (!diagram.parentElement.matches(".diagram")) {
    const frame = document.createElement("div");
    frame.className = "diagram";
    diagram.replaceWith(frame);
    frame.append(diagram);
  }
  diagram.classList.toggle("large");
});
