// Sorts the table of records by a click on a heading, and hides what lies outside of the brushed parts of the axes.
// Without scripts the page shows all of it. Nothing is fetched and nothing kept.
(() => {
  const table = document.getElementById("records");
  const body = table.tBodies[0];
  const first = [...body.rows];
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" || text === "nan" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  const sortBy = (column, heading) => {
    const falls = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const keyed = first.map((row) => [valueOf(row, column), row]);
    const missing = keyed.filter(([value]) => value === null); // last in both directions
    const told = keyed.filter(([value]) => value !== null).sort(([a], [b]) => (falls ? compare(b, a) : compare(a, b)));
    for (const [, row] of [...told, ...missing]) body.append(row);
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(column, heading));
    heading.append(button);
  });

  const plot = document.querySelector("#parallel svg");
  if (!plot) return;
  const lines = [...plot.querySelectorAll("polyline")];
  const axes = [...plot.querySelectorAll(".axis")];
  const brushes = new Map(); // axis -> [top, bottom]
  const made = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const points = lines.map(
    (line) => new Map(line.getAttribute("points").split(" ").map((point) => point.split(",").map(Number))),
  );
  const told = document.getElementById("brushed");
  const invitation = told.textContent;
  const show = () => {
    const kept = new Set();
    lines.forEach((line, i) => {
      const isIn = [...brushes].every(([x, [top, bottom]]) => {
        const y = points[i].get(x);
        return y !== undefined && y >= top - 0.5 && y <= bottom + 0.5;
      });
      line.classList.toggle("off", !isIn);
      if (isIn) kept.add(line.dataset.id);
    });
    for (const row of first) row.classList.toggle("off", brushes.size > 0 && !kept.has(row.dataset.id));
    told.textContent = brushes.size
      ? told.dataset.kept.replace("{kept}", kept.size).replace("{all}", lines.length)
      : invitation;
  };
  axes.forEach((axis) => {
    const [x, top, bottom] = ["x1", "y1", "y2"].map((name) => Number(axis.getAttribute(name)));
    const brush = made("rect", { class: "brush", x: x - 8, width: 16, y: top, height: 0 });
    const grip = made("rect", { class: "grip", x: x - 14, width: 28, y: top - 10, height: bottom - top + 20 });
    plot.append(brush, grip);
    const at = (event) => {
      const box = plot.getBoundingClientRect();
      const y = ((event.clientY - box.top) * plot.viewBox.baseVal.height) / box.height;
      return Math.min(Math.max(y, top), bottom);
    };
    let from = null;
    grip.addEventListener("pointerdown", (event) => {
      from = at(event);
      grip.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    grip.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const ends = [from, at(event)].sort((a, b) => a - b);
      brush.setAttribute("y", ends[0]);
      brush.setAttribute("height", ends[1] - ends[0]);
    });
    grip.addEventListener("pointerup", (event) => {
      const ends = [from, at(event)].sort((a, b) => a - b);
      from = null;
      if (ends[1] - ends[0] < 4) {
        brushes.delete(x);
        brush.setAttribute("height", 0);
      } else {
        brushes.set(x, ends);
      }
      show();
    });
  });
})();
