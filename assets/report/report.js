// What a report can do beyond being read: tips, linked cells, sorting, switching methods off, copying.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const tip = document.getElementById("tip");
  let held = null;

  function say(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, x + 14), innerWidth - box.width - 8);
    const top = y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18;
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  }

  function quiet() {
    tip.hidden = true;
    if (held) { held.classList.remove("marked"); held = null; }
  }

  // Marks of charts: by pointer, and one after the other by arrow keys.
  function mark(element, x, y) {
    quiet();
    held = element;
    element.classList.add("marked");
    const box = element.getBoundingClientRect();
    say(element.dataset.tip, x ?? box.right, y ?? box.bottom);
  }

  function chart(drawing) {
    let at = -1;
    const marks = () => all("[data-tip]", drawing).filter((element) => !element.classList.contains("off"));
    drawing.addEventListener("pointermove", (event) => {
      const element = event.target.closest("[data-tip]");
      element ? mark(element, event.clientX, event.clientY) : quiet();
    });
    drawing.addEventListener("pointerleave", quiet);
    drawing.addEventListener("blur", () => { at = -1; quiet(); });
    drawing.addEventListener("keydown", (event) => {
      const found = marks();
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") return quiet();
      if (!found.length || (step === undefined && event.key !== "Home" && event.key !== "End")) return;
      event.preventDefault();
      at = event.key === "Home" ? 0 : event.key === "End" ? found.length - 1 : (at + step + found.length) % found.length;
      mark(found[at]);
    });
  }

  // Heatmaps: the same layer is marked in all of them, and the tip tells what every plan does with it.
  function heatmaps(group) {
    const data = JSON.parse(group.querySelector("script").textContent);
    const index = new Map(data.places.map(([block, kind], number) => [`${block} ${kind}`, number]));
    const figures = all("figure", group);
    const percent = (share) => `${(100 * share).toFixed(1).replace(/\.0$/, "")} %`;
    const maps = figures.map((figure) => {
      const svg = figure.querySelector("svg");
      const [left, top, wide, high, columns, rows] = svg.dataset.grid.split(" ").map(Number);
      const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      cursor.setAttribute("class", "cursor");
      cursor.setAttribute("width", wide - 1 + 2);
      cursor.setAttribute("height", Math.max(high - 1, 1) + 2);
      cursor.setAttribute("visibility", "hidden");
      svg.append(cursor);
      return { figure, svg, cursor, left, top, wide, high, columns, rows };
    });

    function words(stored, full, kept) {
      if (Array.isArray(stored)) return `pruned to ${stored[0]} × ${stored[1]}`;
      if (stored < 0) return "dense, 100 %";
      return `rank ${stored} of ${full}, ${percent(kept)}`;
    }

    function show(kind, block, x, y) {
      const number = index.get(`${block} ${kind}`);
      if (number === undefined) return hide();
      for (const map of maps) {
        map.cursor.setAttribute("x", map.left + kind * map.wide - 1);
        map.cursor.setAttribute("y", map.top + block * map.high - 1);
        map.cursor.setAttribute("visibility", "visible");
      }
      const lines = maps
        .map((map, place) => [map, place])
        .filter(([map]) => !map.figure.classList.contains("off"))
        .map(([, place]) => `${data.labels[place]}: ${words(data.plans[place][number], data.full[number], data.kept[place][number])}`);
      say([`Block ${block}, ${data.kinds[kind]}`, ...lines].join("\n"), x, y);
      return true;
    }

    function hide() {
      for (const map of maps) map.cursor.setAttribute("visibility", "hidden");
      quiet();
    }

    for (const map of maps) {
      const drawing = map.figure.querySelector(".drawing");
      let [kind, block] = [0, 0];
      drawing.addEventListener("pointermove", (event) => {
        const box = map.svg.getBoundingClientRect();
        const scale = map.svg.viewBox.baseVal.width / box.width;
        const across = Math.floor(((event.clientX - box.left) * scale - map.left) / map.wide);
        const down = Math.floor(((event.clientY - box.top) * scale - map.top) / map.high);
        const inside = across >= 0 && across < map.columns && down >= 0 && down < map.rows;
        if (!inside) return hide();
        [kind, block] = [across, down];
        show(kind, block, event.clientX, event.clientY);
      });
      drawing.addEventListener("pointerleave", hide);
      drawing.addEventListener("blur", hide);
      drawing.addEventListener("keydown", (event) => {
        const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], Home: [0, -block], End: [0, map.rows - 1 - block] }[event.key];
        if (event.key === "Escape") return hide();
        if (!step) return;
        event.preventDefault();
        if (map.cursor.getAttribute("visibility") === "visible") {
          kind = Math.min(map.columns - 1, Math.max(0, kind + step[0]));
          block = Math.min(map.rows - 1, Math.max(0, block + step[1]));
        }
        const box = map.svg.getBoundingClientRect();
        const scale = box.width / map.svg.viewBox.baseVal.width;
        show(kind, block, box.left + (map.left + (kind + 1) * map.wide) * scale, box.top + (map.top + block * map.high) * scale);
      });
    }
  }

  // Tables: a click on a head sorts, another one turns the order round. What has no value stays last.
  function sortable(table) {
    const body = table.tBodies[0];
    const asked = [...body.rows];
    const heads = all("thead th", table);
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const order = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", order);
      const value = (row) => row.cells[column].dataset.v;
      const compare = (one, other) => {
        const [a, b] = [value(one), value(other)];
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        const found = Number.isNaN(+a) || Number.isNaN(+b) ? a.localeCompare(b) : a - b;
        return order === "descending" ? -found : found;
      };
      body.append(...(order === "none" ? asked : [...asked].sort(compare)));
    }));
  }

  // Switches of methods and targets.
  function switches(form) {
    form.hidden = false;
    const off = (kind) => new Set(all(`[data-switch-${kind}]`, form).filter((box) => !box.checked).map((box) => box.getAttribute(`data-switch-${kind}`)));
    const update = () => {
      const [methods, targets] = [off("method"), off("target")];
      let hidden = 0;
      for (const element of all("main [data-method], main [data-target]")) {
        const away = methods.has(element.dataset.method) || targets.has(element.dataset.target);
        element.classList.toggle("off", away);
        if (away && element.matches("tr, figure, article")) hidden += 1;
      }
      for (const group of all(".heatmaps")) { // a line of heatmaps a target, as long as every method has its place in it
        const abreast = Number(group.dataset.columns);
        const methods = all("[data-switch-method]", form);
        if (abreast === methods.length) group.style.setProperty("--columns", Math.max(2, methods.filter((box) => box.checked).length));
      }
      form.querySelector(".count").textContent = hidden ? `${hidden} rows and pictures hidden` : "";
      quiet();
    };
    form.addEventListener("change", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    update();
  }

  function copyable(button) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
  }

  all(".heatmaps").forEach(heatmaps);
  all(".charts .drawing").forEach(chart);
  all("table").forEach(sortable);
  all("form.switches").forEach(switches);
  all(".copy").forEach(copyable);
})();
