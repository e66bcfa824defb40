"use strict";
// Sorting, filtering and copying; without it the page is complete, only still.
(() => {
  const table = document.getElementById("trials-table");
  if (table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, column, numeric) => {
      const raw = row.cells[column].dataset.sort;
      if (!numeric) return raw;
      if (raw === "") return null;
      return raw === "inf" ? Infinity : raw === "-inf" ? -Infinity : Number(raw);
    };
    const compare = (a, b, numeric) =>
      numeric ? (a < b ? -1 : a > b ? 1 : 0) : a.localeCompare(b, "en", { numeric: true });
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const numeric = head.dataset.kind === "number";
        const sorted = rows
          .map((row, place) => ({ row, place, value: key(row, column, numeric) }))
          .sort((a, b) => {
            // rows without a value stay last in both directions
            if (a.value === null || b.value === null)
              return (a.value === null) - (b.value === null) || a.place - b.place;
            return (down ? -1 : 1) * compare(a.value, b.value, numeric) || a.place - b.place;
          });
        body.append(...sorted.map((entry) => entry.row));
      });
    });
    const input = document.getElementById("filter");
    const shown = document.getElementById("shown");
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        row.hidden = !words.every((word) => texts.get(row).includes(word));
        count += row.hidden ? 0 : 1;
      }
      shown.textContent = words.length ? `${count} of ${rows.length} trials` : "";
    });
    input.closest(".tools").hidden = false;
  }
  for (const block of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
    block.append(button);
  }
})();
