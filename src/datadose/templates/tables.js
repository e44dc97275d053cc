// Tables that sort by a button in each header cell (up, down, as printed), and the filters of the ledger.
// Without this script every table is there, whole and in its order.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function sortKey(row, column) {
  const cell = row.cells[column];
  const text = ("value" in cell.dataset ? cell.dataset.value : cell.textContent).trim();
  const number = text === "" ? NaN : Number(text.replace(/,/g, "").replace(/%$/, ""));
  return { text, number };
}

function compare(a, b, numeric) {
  return numeric ? a.number - b.number : collator.compare(a.text, b.text);
}

function sortRows(table, column, direction) {
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => ({ row, key: sortKey(row, column) }));
  if (direction === "none") {
    keyed.sort((a, b) => a.row.dataset.place - b.row.dataset.place);
  } else {
    const filled = keyed.filter(({ key }) => key.text !== "");
    const numeric = filled.every(({ key }) => !Number.isNaN(key.number));
    const sign = direction === "ascending" ? 1 : -1;
    // Rows without a value stay at the end in both directions; ties keep the printed order.
    keyed.sort((a, b) =>
      (a.key.text === "") - (b.key.text === "")
      || (a.key.text === "" ? 0 : sign * compare(a.key, b.key, numeric))
      || a.row.dataset.place - b.row.dataset.place);
  }
  body.append(...keyed.map(({ row }) => row));
}

function makeSortable(table) {
  Array.from(table.tBodies[0].rows).forEach((row, place) => { row.dataset.place = place; });
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    if (!("sort" in head.dataset)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] || "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next !== "none") head.setAttribute("aria-sort", next);
      sortRows(table, column, next);
    });
  });
}

function filterLedger(table, bar) {
  const search = bar.querySelector("input");
  const buttons = Array.from(bar.querySelectorAll("button"));
  const said = bar.querySelector("[aria-live]");
  const rows = Array.from(table.tBodies[0].rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = buttons.filter((one) => one.getAttribute("aria-pressed") === "true").map((one) => one.dataset.verdict);
    let shown = 0;
    for (const row of rows) {
      const fits = (wanted.length === 0 || wanted.includes(row.dataset.verdict))
        && words.every((word) => texts.get(row).includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    said.textContent = `${shown} of ${rows.length} claims`;
  }
  function choose(verdicts, text = "") {
    search.value = text;
    buttons.forEach((one) => one.setAttribute("aria-pressed", verdicts.includes(one.dataset.verdict)));
    apply();
  }
  function openTarget() {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!row || !texts.has(row)) return;
    if (row.hidden) choose([]);
    row.querySelector("details").open = true;
    row.scrollIntoView({ block: "nearest" });
  }

  search.addEventListener("input", apply);
  buttons.forEach((one) => one.addEventListener("click", () => {
    one.setAttribute("aria-pressed", one.getAttribute("aria-pressed") !== "true");
    apply();
  }));
  document.querySelectorAll("a[data-verdict]").forEach((link) =>
    link.addEventListener("click", () => choose([link.dataset.verdict])));
  document.addEventListener("click", (event) => {
    // A second click on the same link changes no hash, yet the row may have been filtered away since.
    if (event.target.closest?.("a[href^='#']")) setTimeout(openTarget);
  });
  window.addEventListener("hashchange", openTarget);
  bar.hidden = false;
  apply();
  openTarget();
}

const ledger = document.getElementById("ledger");
if (ledger) {
  makeSortable(ledger);
  filterLedger(ledger, document.getElementById("filters"));
}

// The contents show which section is being read; on paper nothing stays folded.
const inContents = new Map(Array.from(document.querySelectorAll("nav.side a"), (a) => [a.hash.slice(1), a]));
const reading = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    inContents.forEach((link) => link.removeAttribute("aria-current"));
    inContents.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -70% 0px" });
document.querySelectorAll("main section").forEach((section) => reading.observe(section));
const folded = [];
window.addEventListener("beforeprint", () => document.querySelectorAll("details.more:not(.data):not([open])").forEach((one) => {
  one.open = true;
  folded.push(one);
}));
window.addEventListener("afterprint", () => folded.splice(0).forEach((one) => { one.open = false; }));

// A picture that does not fit says that it scrolls.
const fits = new ResizeObserver((entries) => entries.forEach(({ target }) => {
  const hint = target.closest("figure").querySelector(".sideways");
  const needed = target.scrollWidth > target.clientWidth + 1;
  hint.classList.toggle("needed", needed);
  hint.hidden = !needed;
}));
document.querySelectorAll("figure .scroll").forEach((one) => fits.observe(one));

// A link to a term unfolds the terms.
function openTerms() {
  if (location.hash === "#terms") document.querySelector("#terms details").open = true;
}
window.addEventListener("hashchange", openTerms);
openTerms();
