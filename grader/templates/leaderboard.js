"use strict";
const valueOf = (row, column) => {
  const value = row.cells[column].dataset.value;
  return value === "inf" ? Infinity : Number.isNaN(Number(value)) ? value : Number(value);
};
const compare = (first, second) =>
  typeof first === "string" || typeof second === "string"
    ? String(first).localeCompare(String(second))
    : first === second ? 0 : first - second;

for (const table of document.querySelectorAll("table.standing")) {
  const headers = [...table.tHead.rows[0].cells].filter((header) => header.dataset.first);
  const body = table.tBodies[0];
  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const other = { ascending: "descending", descending: "ascending" };
      const direction = header.ariaSort ? other[header.ariaSort] : header.dataset.first;
      for (const one of headers) one.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const column = header.cellIndex;
      const rows = [...body.rows];
      rows.sort((first, second) => sign * compare(valueOf(first, column), valueOf(second, column)));
      body.append(...rows);
    });
  }
}

// A link to an entry opens the entrant that it lies in.
const reveal = () => {
  const entry = location.hash && document.getElementById(location.hash.slice(1));
  const entrant = entry && entry.closest("details");
  if (entrant && !entrant.open) {
    entrant.open = true;
    entry.scrollIntoView();
  }
};
addEventListener("hashchange", reveal);
reveal();
