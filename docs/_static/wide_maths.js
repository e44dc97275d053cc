// A formula within a line cannot scroll unless it becomes a block: done only for those wider than their paragraph.
function markWide() {
  document.querySelectorAll("span.math mjx-container").forEach((formula) => {
    formula.classList.remove("wide");
    const block = formula.closest("p, li, dd, td, h1, h2, h3, h4");
    if (block && !formula.closest("table") && formula.getBoundingClientRect().width > block.clientWidth) {
      formula.classList.add("wide");
    }
  });
}
window.addEventListener("load", () => {
  if (window.MathJax && window.MathJax.startup) {
    window.MathJax.startup.promise.then(markWide);
    window.addEventListener("resize", markWide);
  }
});
