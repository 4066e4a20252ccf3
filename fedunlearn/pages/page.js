"use strict";
// Nothing here is needed to read the page: it sorts tables, and shows the values of a chart's marks.

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  if (body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
      rows.sort(([a], [b]) => compare(a, b, up));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function key(cell) {
  const told = cell.querySelector("data")?.value ?? cell.dataset.order;
  if (told !== undefined) return told && Number(told.replace("inf", "Infinity"));
  const text = cell.textContent.trim();
  return text === "–" ? "" : text;
}

// Numbers before texts; what is not known last, whichever way.
function compare(a, b, up) {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  return up ? order : -order;
}

const tip = document.getElementById("tip");
let current = null;

function show(mark) {
  if (current) current.classList.remove("at");
  current = mark;
  tip.hidden = !mark;
  if (!mark) return;
  mark.classList.add("at");
  tip.textContent = mark.dataset.label.split("; ").join("\n");
  place();
}

function place() {
  const at = current.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const above = at.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, Math.min(room, at.left + at.width / 2 - tip.offsetWidth / 2))}px`;
  tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
}

for (const drawing of document.querySelectorAll(".drawing")) {
  drawing.addEventListener("pointerover", (event) => show(event.target.closest("[data-label]")));
  drawing.addEventListener("pointerleave", () => show(null));
  drawing.addEventListener("blur", () => show(null));
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(null);
    if (!step) return;
    const marks = [...drawing.querySelectorAll("[data-label]")].filter((mark) => mark.getClientRects().length);
    if (!marks.length) return;
    event.preventDefault();
    const at = marks.indexOf(current);
    show(marks[at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length]);
  });
}

// Who came by keyboard keeps the values while the page scrolls to the chart.
function scrolled() {
  if (current && document.activeElement?.contains(current) && document.activeElement !== document.body) place();
  else show(null);
}
addEventListener("scroll", scrolled, { passive: true, capture: true });

// A link into something folded opens it.
function unfold() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}
addEventListener("hashchange", unfold);
unfold();

// Paper unfolds nothing: what belongs on it is opened for as long as it is printed.
const unfolded = [];
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details.paper:not([open])")) {
    folded.open = true;
    unfolded.push(folded);
  }
});
addEventListener("afterprint", () => {
  for (const folded of unfolded.splice(0)) folded.open = false;
});

// Whoever cannot see that a table goes on to the right is told.
const sides = new ResizeObserver((all) => {
  for (const { target } of all) target.classList.toggle("more", target.scrollWidth > target.clientWidth + 1);
});
for (const scroll of document.querySelectorAll(".scroll")) sides.observe(scroll);
