// Values on hover, tap or arrow key, read from the record that was saved with each picture: places are
// fractions of the picture, so a ring laid over it needs no second drawing.

const NEAR = 26; // pixels within which a pointer picks a point
const SAME = 1.5; // points this near to each other are told together
const TOLD = 3; // at most so many

const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
tip.setAttribute("aria-hidden", "true");
const spoken = Object.assign(document.createElement("div"), { className: "unseen" });
spoken.setAttribute("aria-live", "polite");
document.body.append(tip, spoken);
let shown = null; // { plot, point, byKey } while a tooltip is open

function number(value) {
  if (typeof value !== "number") return value;
  return Number.isInteger(value) && Math.abs(value) >= 1e4 ? value.toLocaleString("en-US") : String(value);
}

function told(label, value, ends, letter) {
  if (value === null || value === undefined) return "";
  const bar = ends ? ` (bar: ${number(ends[0])} to ${number(ends[1])})` : "";
  // A category says by itself what it is.
  return (typeof value === "string" && !label ? value : `${label || letter} = ${number(value)}`) + bar;
}

const tellX = (point) => told(point.panel.x, point.x, point.xbar, "x");
const tellY = (point) => told(point.panel.y, point.y, point.ybar, "y");
const tellCell = (point) => (point.cell ? told(point.name, point.cell, null, "") : "");

// --- the record as groups of points: a group is a series, or the cells of a heat map ---

function cellGroup(panel) {
  const { columns, rows, x, y, values, label } = panel.cells;
  const group = { across: x.length, points: [] };
  values.forEach((line, j) => line.forEach((value, i) => {
    const [left, right] = [columns[i], columns[i + 1]].sort((a, b) => a - b);
    const [top, bottom] = [rows[j], rows[j + 1]].sort((a, b) => a - b);
    if (value === null || right <= left || bottom <= top) return;
    group.points.push({ panel, group, name: label, label: "", x: x[i], y: y[j], cell: number(value),
      box: [left, top, right, bottom], at: [(left + right) / 2, (top + bottom) / 2], row: j });
  }));
  return group;
}

function seriesGroup(panel, series) {
  const group = { across: 0, points: [] };
  for (let i = 0; i < series.x.length; i += 1) {
    group.points.push({ panel, group, label: series.label, color: series.color, x: series.x[i], y: series.y[i],
      xbar: series.xbar?.[i], ybar: series.ybar?.[i], at: [series.at[2 * i], series.at[2 * i + 1]] });
  }
  group.points.sort((a, b) => a.at[0] - b.at[0]);
  return group;
}

function groupsOf(record) {
  return record.panels.flatMap((panel) => [
    ...panel.series.map((series) => seriesGroup(panel, series)),
    ...(panel.cells ? [cellGroup(panel)] : []),
  ]).filter((group) => group.points.length > 0);
}

// --- showing ---

function distance(a, b, box) {
  return Math.hypot((a[0] - b[0]) * box.width, (a[1] - b[1]) * box.height);
}

function line(text, kind, color) {
  const made = Object.assign(document.createElement("div"), { textContent: text, className: kind || "" });
  if (color) made.style.setProperty("--mark", color);
  return made;
}

function write(points) {
  const [first] = points;
  tip.replaceChildren();
  if (first.panel.title) tip.append(line(first.panel.title, "panel"));
  points.forEach((point, k) => {
    if (point.label) tip.append(line(point.label, "series", point.color));
    const x = k === 0 || tellX(point) !== tellX(first) ? tellX(point) : "";
    const texts = [x, tellY(point), tellCell(point)].filter(Boolean);
    (k === 0 ? texts : [texts.join(", ")]).forEach((text) => tip.append(line(text)));
  });
}

function sentence(point) {
  const place = [point.panel.title, point.label].filter(Boolean).join(" \u2014 ");
  const values = [tellX(point), tellY(point), tellCell(point)].filter(Boolean).join(", ");
  return place ? `${place}: ${values}` : values;
}

function place() {
  const box = shown.plot.getBoundingClientRect();
  const [x, y] = [box.left + shown.point.at[0] * box.width, box.top + shown.point.at[1] * box.height];
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = x + 16 + width < innerWidth - 8 ? x + 16 : x - 16 - width;
  const top = y - height - 12 > 8 ? y - height - 12 : y + 16;
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`;
}

function hide() {
  if (!shown) return;
  shown.ring.remove();
  tip.hidden = true;
  shown = null;
}

function show(plot, groups, point, byKey) {
  const box = plot.getBoundingClientRect();
  const others = point.box ? [] : groups.filter((group) => group !== point.group && group.points[0].panel === point.panel)
    .flatMap((group) => group.points.filter((one) => !one.box && distance(one.at, point.at, box) < SAME).slice(0, 1));
  if (shown?.plot !== plot) hide();
  const ring = shown?.ring || document.createElement("div");
  ring.className = point.box ? "ring cell" : "ring";
  ring.style.left = `${100 * (point.box ? point.box[0] : point.at[0])}%`;
  ring.style.top = `${100 * (point.box ? point.box[1] : point.at[1])}%`;
  ring.style.width = point.box ? `${100 * (point.box[2] - point.box[0])}%` : "";
  ring.style.height = point.box ? `${100 * (point.box[3] - point.box[1])}%` : "";
  plot.append(ring);
  shown = { plot, point, ring, byKey };
  write([point, ...others.slice(0, TOLD - 1)]);
  tip.hidden = false;
  place();
  if (byKey) spoken.textContent = sentence(point);
}

function pick(groups, at, box) {
  let best = null;
  let nearest = NEAR;
  for (const group of groups) {
    for (const point of group.points) {
      const away = point.box ? Infinity : distance(point.at, at, box);
      if (away < nearest) [best, nearest] = [point, away];
    }
  }
  if (best && (nearest < NEAR / 3 || !best.panel.cells)) return best;
  const inside = ({ box: b }) => b && at[0] >= b[0] && at[0] < b[2] && at[1] >= b[1] && at[1] < b[3];
  return groups.flatMap((group) => group.points).find(inside) || best;
}

// --- the keyboard: left and right along a series, up and down between series; in a heat map, cell by cell ---

function step(groups, point, key) {
  const { group } = point;
  const index = group.points.indexOf(point);
  if (key === "Home") return group.points[0];
  if (key === "End") return group.points[group.points.length - 1];
  const sideways = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (sideways) return group.points[index + sideways] || point;
  const up = key === "ArrowUp";
  if (group.across) {
    const column = group.points.filter((one) => Math.abs(one.at[0] - point.at[0]) < 1e-6)
      .sort((a, b) => a.at[1] - b.at[1]);
    const next = column[column.indexOf(point) + (up ? -1 : 1)];
    if (next) return next;
  }
  const other = groups[(groups.indexOf(group) + (up ? -1 : 1) + groups.length) % groups.length];
  const gap = (one) => Math.abs((one.at[0] - one.panel.box[0]) - (point.at[0] - point.panel.box[0]));
  return other.points.reduce((best, one) => (gap(one) < gap(best) ? one : best));
}

function makeReadable(plot, groups) {
  plot.tabIndex = 0;
  plot.setAttribute("role", "application");
  plot.setAttribute("aria-roledescription", "figure with values");
  plot.setAttribute("aria-label", plot.querySelector("img").alt);
  plot.setAttribute("aria-describedby", "hint");
  let last = groups[0].points[0];

  function point(event) {
    const box = plot.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const found = pick(groups, at, box);
    if (!found) {
      if (shown?.plot === plot) hide();
      return;
    }
    if (shown?.point === found && !shown.byKey) return;
    last = found;
    show(plot, groups, found, false);
  }
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse" && shown?.plot === plot) hide();
  });
  plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) show(plot, groups, last, true); });
  plot.addEventListener("blur", () => { if (shown?.plot === plot) hide(); });
  plot.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") hide();
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    if (shown?.plot === plot) last = step(groups, last, event.key);
    show(plot, groups, last, true);
  });
}

document.addEventListener("pointerdown", (event) => { if (shown && !shown.plot.contains(event.target)) hide(); });
document.addEventListener("scroll", () => { if (shown) { if (shown.byKey) place(); else hide(); } }, { capture: true, passive: true });

// --- the same values as a table, built when it is opened ---

function valuesTable(panel) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const heads = ["Series", panel.x || "x", panel.y || "y"];
  const cells = panel.cells ? cellGroup(panel).points : [];
  const points = panel.series.flatMap((series) => seriesGroup(panel, series).points);
  const bars = points.some((one) => one.xbar || one.ybar);
  if (bars) heads.push("Bar");
  if (cells.length) heads.push(panel.cells.label || "Cell");
  for (const text of heads) {
    const cell = Object.assign(document.createElement("th"), { textContent: text, scope: "col" });
    cell.dataset.sort = "";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const point of [...points, ...cells]) {
    const row = body.insertRow();
    const bar = (point.ybar || point.xbar || []).map(number).join(" to ");
    const texts = [point.label, point.x, point.y, ...(bars ? [bar] : []), ...(cells.length ? [point.cell] : [])];
    texts.forEach((value) => { row.insertCell().textContent = number(value ?? ""); });
  }
  makeSortable(table);
  return table;
}

function offerValues(details, record) {
  details.hidden = false;
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const select = document.createElement("select");
    select.setAttribute("aria-label", "Panel");
    record.panels.forEach((panel, k) => select.append(new Option(panel.title || `Panel ${k + 1}`, k)));
    const holder = Object.assign(document.createElement("div"), { className: "values", tabIndex: 0 });
    holder.setAttribute("role", "region");
    holder.setAttribute("aria-label", "Values");
    const fill = () => holder.replaceChildren(valuesTable(record.panels[select.value]));
    select.addEventListener("change", fill);
    details.append(select, holder);
    select.hidden = record.panels.length < 2;
    fill();
  });
}

document.querySelectorAll(".plot").forEach((plot) => {
  const saved = document.getElementById(`hover-${plot.dataset.name}`);
  const record = saved && JSON.parse(saved.textContent);
  if (!record || record.format !== 1) return;
  const groups = groupsOf(record);
  if (groups.length === 0) return;
  makeReadable(plot, groups);
  document.getElementById("hint").hidden = false;
  const details = document.querySelector(`details[data-values="${plot.dataset.name}"]`);
  if (details) offerValues(details, record);
});
