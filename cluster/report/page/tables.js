// Lines to copy, and tables that are sorted by their headings.
function prepareCopying() {
  for (const button of document.querySelectorAll("button.copy")) button.addEventListener("click", () => copy(button));
}

// Where a page from disk may not write to the clipboard, the line is selected.
async function copy(button) {
  const line = button.parentElement.querySelector("code");
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(line.textContent);
    button.firstChild.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(line);
    button.firstChild.textContent = "Selected";
  }
  setTimeout(() => (button.firstChild.textContent = "Copy"), 2000);
}

function prepareSorting() {
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const button of table.querySelectorAll("thead button")) {
      button.addEventListener("click", () => sortBy(table, button.closest("th")));
    }
  }
}

// Numbers begin with the highest, names with the first; what is not known stays at the end.
function sortBy(table, heading) {
  const column = heading.cellIndex;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [row.cells[column].dataset.value ?? row.cells[column].textContent, row]);
  const known = rows.filter(([value]) => value !== "");
  const areNumbers = known.every(([value]) => Number.isFinite(Number(value)));
  const first = areNumbers ? "descending" : "ascending";
  const other = areNumbers ? "ascending" : "descending";
  const direction = heading.getAttribute("aria-sort") === first ? other : first;
  const sign = direction === "ascending" ? 1 : -1;
  known.sort(([a], [b]) => sign * (areNumbers ? a - b : a.localeCompare(b, "en", { numeric: true })));
  for (const cell of heading.parentElement.cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  body.append(...known.map(([, row]) => row), ...rows.filter(([value]) => value === "").map(([, row]) => row));
}
