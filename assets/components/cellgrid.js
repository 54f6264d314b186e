// A heatmap of layers that is clicked on and walked over by keyboard. Blocks down, kinds across.
// Python sends everything in `data`; back come the triggers `picked` ({id, add}) and `pinned` ({id}).
const SVG = "http://www.w3.org/2000/svg";
const kept = new WeakMap(); // of one instance: the active cell, the timer of a pick that waits, what was drawn
const WAIT_MS = 160; // arrows held down choose once, where they stop

function node(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function channels(color) {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = color.trim();
  const hex = probe.fillStyle;
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function ramp(style, diverging) {
  const name = diverging ? "--st-chart-diverging-colors" : "--st-chart-sequential-colors";
  const stops = style.getPropertyValue(name).trim().split(/,(?![^(]*\))/).map(channels);
  return (share) => {
    const place = Math.min(1, Math.max(0, share)) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(place));
    const mixed = stops[low].map((value, i) => Math.round(value + (stops[low + 1][i] - value) * (place - low)));
    return `rgb(${mixed.join(",")})`;
  };
}

function place(value, data) {
  if (data.log) return (Math.log(value) - Math.log(data.low)) / (Math.log(data.high) - Math.log(data.low) || 1);
  return (value - data.low) / (data.high - data.low || 1);
}

function sizes(data, width) {
  const left = 40, bar = 84, longest = Math.max(...data.columns.map((label) => label.length));
  const row = data.rows <= 14 ? 24 : data.rows <= 40 ? 16 : data.rows <= 80 ? 11 : 8;
  const cell = Math.max(20, (width - left - bar) / data.columns.length);
  const tilted = longest * 7 > cell - 4;
  const top = tilted ? Math.min(120, 14 + longest * 5) : 24;
  return { left, bar, row, cell, tilted, top, width: left + bar + cell * data.columns.length,
           height: top + row * data.rows + 8 };
}

function axes(svg, data, at, style) {
  const ink = style.getPropertyValue("--st-text-color");
  const font = { "font-size": 11.5, fill: ink, "font-family": style.getPropertyValue("--st-font") };
  data.columns.forEach((label, i) => {
    const x = at.left + at.cell * (i + 0.5), y = at.top - 7;
    const turn = at.tilted ? { transform: `rotate(-38 ${x} ${y})`, "text-anchor": "start" } : { "text-anchor": "middle" };
    svg.append(node("text", { x, y, ...font, ...turn, "aria-hidden": true }, label));
  });
  svg.append(node("text", { x: 0, y: at.top - 7, ...font, "aria-hidden": true }, "Block"));
  const step = data.rows <= 14 ? 1 : data.rows <= 60 ? 5 : 10;
  for (let row = 0; row < data.rows; row += step) {
    svg.append(node("text", { x: at.left - 7, y: at.top + at.row * (row + 0.5) + 4, "text-anchor": "end", ...font,
                              "aria-hidden": true }, row));
  }
}

function scaleBar(svg, data, at, style, color) {
  const x = at.left + at.cell * data.columns.length + 10, height = Math.min(260, at.row * data.rows), steps = 48;
  const ink = style.getPropertyValue("--st-text-color");
  const group = node("g", { "aria-hidden": true });
  for (let i = 0; i < steps; i++) {
    group.append(node("rect", { x, y: at.top + height * (1 - (i + 1) / steps), width: 10, height: height / steps + 0.6,
                                fill: color((i + 0.5) / steps) }));
  }
  for (const [value, label] of data.ticks) {
    const y = at.top + height * (1 - place(value, data)), even = value === data.even;
    if (even) group.append(node("line", { class: "even", x1: x - 4, x2: x + 12, y1: y, y2: y, stroke: ink, "stroke-width": 2.5 }));
    group.append(node("text", { x: x + 14, y: Math.min(at.top + height, Math.max(at.top + 8, y + 4)), "font-size": 11,
                                "font-weight": even ? 700 : 400, fill: ink, "font-family": style.getPropertyValue("--st-font") }, label));
  }
  const side = x + 60, middle = at.top + height / 2;
  group.append(node("text", { x: side, y: middle, transform: `rotate(90 ${side} ${middle})`, "text-anchor": "middle",
                              "font-size": 11, fill: ink, "font-family": style.getPropertyValue("--st-font") }, data.unit));
  svg.append(group);
}

function draw(root, data, state) {
  const host = root.host ?? root, style = getComputedStyle(host), box = root.querySelector(".grid");
  const at = sizes(data, box.clientWidth || 480), color = ramp(style, data.diverging);
  const svg = node("svg", { width: at.width, height: at.height, viewBox: `0 0 ${at.width} ${at.height}`, role: "grid",
                            tabindex: 0, "aria-label": data.label, "aria-rowcount": data.rows });
  axes(svg, data, at, style);
  scaleBar(svg, data, at, style, color);
  const rows = new Map(), found = new Set(data.found || []);
  data.cells.forEach(([row, column, id, value, words, mark], index) => {
    if (!rows.has(row)) {
      rows.set(row, node("g", { role: "row", "aria-rowindex": row + 1 }));
      svg.append(rows.get(row));
    }
    const gap = at.row < 10 ? 0.5 : 1;
    const x = at.left + at.cell * column + gap, y = at.top + at.row * row + gap;
    const width = at.cell - 2 * gap, height = at.row - 2 * gap;
    const chosen = data.chosen.some(([other]) => other === id);
    const cell = node("rect", { x, y, width, height, rx: 1.5, id: `${state.prefix}-${index}`, role: "gridcell",
                                "aria-label": words.replaceAll("\n", ", "), "aria-selected": chosen, "data-id": id,
                                fill: value === null ? "none" : color(place(value, data)) });
    if (value === null) cell.setAttribute("stroke", style.getPropertyValue("--st-border-color"));
    if (data.found && !found.has(id)) cell.setAttribute("opacity", 0.18);
    rows.get(row).append(cell);
    if (mark) svg.append(node("text", { x: x + width / 2, y: y + height / 2 + 4, "text-anchor": "middle", "font-size": 11,
                                        fill: style.getPropertyValue("--st-text-color"), stroke: style.getPropertyValue("--st-background-color"),
                                        "stroke-width": 3, "paint-order": "stroke", "pointer-events": "none", "aria-hidden": true }, mark));
    if (data.pinned === id) svg.append(node("circle", { cx: x + width / 2, cy: y + height / 2, r: Math.min(5, height / 3),
      fill: style.getPropertyValue("--st-background-color"), stroke: style.getPropertyValue("--st-text-color"), "stroke-width": 2, "pointer-events": "none" }));
  });
  state.outlines = node("g", { "pointer-events": "none" });
  svg.append(state.outlines);
  const focused = root.activeElement === state.svg && state.svg !== undefined;
  box.replaceChildren(svg);
  state.svg = svg;
  state.at = at;
  outline(data, state);
  if (focused) svg.focus({ preventScroll: true });
}

function box(state, index, data, attributes) {
  const [row, column] = data.cells[index];
  return node("rect", { x: state.at.left + state.at.cell * column, y: state.at.top + state.at.row * row, rx: 2,
                        width: state.at.cell, height: state.at.row, fill: "none", ...attributes });
}

function outline(data, state) {
  state.outlines.replaceChildren();
  const chosen = new Set(data.chosen.map(([id]) => id));
  state.svg.querySelectorAll("[data-id]").forEach((cell) => cell.setAttribute("aria-selected", chosen.has(cell.dataset.id)));
  for (const [id, color] of data.chosen) {
    const index = data.cells.findIndex((cell) => cell[2] === id);
    if (index >= 0) state.outlines.append(box(state, index, data, { stroke: color, "stroke-width": 3 }));
  }
  if (state.active !== undefined && state.active < data.cells.length) {
    state.svg.setAttribute("aria-activedescendant", `${state.prefix}-${state.active}`);
    state.outlines.append(box(state, state.active, data, { class: "cursor", "stroke-width": 2.5 }));
  }
}

function tell(root, data, state, index) {
  const tip = root.querySelector(".tip");
  if (index === undefined) { tip.hidden = true; return; }
  const [row, column, , , words] = data.cells[index], box = root.querySelector(".grid");
  tip.textContent = words;
  tip.hidden = false;
  const x = state.at.left + state.at.cell * (column + 1) - box.scrollLeft + 8;
  const beside = x + tip.offsetWidth < box.clientWidth;
  tip.style.left = `${Math.max(0, beside ? x : x - tip.offsetWidth - state.at.cell - 16)}px`;
  tip.style.top = `${box.offsetTop + Math.max(0, state.at.top + state.at.row * row - tip.offsetHeight / 2)}px`;
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-5, 0],
                PageDown: [5, 0], Home: [0, -1e6], End: [0, 1e6] };

function moved(data, from, [down, across]) {
  const [row, column] = data.cells[from];
  const nearest = (wanted, key, fixed, value) => {
    const line = data.cells.map((cell, i) => [cell[key], i, cell[fixed]]).filter((cell) => cell[2] === value);
    return line.sort((a, b) => Math.abs(a[0] - wanted) - Math.abs(b[0] - wanted) || a[0] - b[0])[0][1];
  };
  return down ? nearest(row + down, 0, 1, column) : nearest(column + across, 1, 0, row);
}

function picture(state, data, root) {
  const copy = state.svg.cloneNode(true), style = getComputedStyle(root.host ?? root);
  copy.setAttribute("xmlns", SVG);
  copy.prepend(node("rect", { width: "100%", height: "100%", fill: style.getPropertyValue("--st-background-color") }));
  copy.querySelectorAll(".cursor").forEach((cursor) => cursor.remove());
  const image = new Image(), canvas = document.createElement("canvas");
  canvas.width = 2 * state.at.width;
  canvas.height = 2 * state.at.height;
  image.onload = () => {
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    const link = document.createElement("a");
    link.download = `${data.name}.png`;
    link.href = canvas.toDataURL("image/png");
    link.click();
  };
  image.src = `data:image/svg+xml;utf8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
}

export default function ({ data, parentElement: root, setTriggerValue }) {
  const state = kept.get(root) ?? { prefix: `c${Math.random().toString(36).slice(2, 8)}` };
  kept.set(root, state);
  const front = data.chosen.at(-1)?.[0]; // chosen elsewhere, in the spectrum for one: the cursor goes there
  if (front !== undefined && front !== state.front) {
    const index = data.cells.findIndex((cell) => cell[2] === front);
    if (index >= 0) state.active = index;
    state.front = front;
  }
  const indexOf = (event) => {
    const id = event.target.getAttribute?.("data-id");
    const index = data.cells.findIndex((cell) => cell[2] === id);
    return index >= 0 ? index : undefined;
  };
  const pick = (index, add) => {
    const id = data.cells[index][2];
    state.active = index;
    state.front = id;
    if (!add) data.chosen = [[id, getComputedStyle(root.host ?? root).getPropertyValue("--st-primary-color")]];
    outline(data, state); // at once, before the server answers
    if (data.picks) setTriggerValue("picked", { id, add });
  };
  const { chosen, ...rest } = data;
  const drawn = JSON.stringify([rest, getComputedStyle(root.host ?? root).getPropertyValue("--st-chart-sequential-colors")]);
  if (state.drawn === drawn && state.svg?.isConnected) outline(data, state); // a choice alone moves the outlines
  else draw(root, data, state);
  state.drawn = drawn;
  const grid = root.querySelector(".grid");
  grid.onclick = (event) => {
    const index = indexOf(event);
    if (index !== undefined) pick(index, event.shiftKey || event.ctrlKey || event.metaKey);
  };
  grid.onmousemove = (event) => tell(root, data, state, indexOf(event));
  grid.onmouseleave = () => tell(root, data, state, undefined);
  grid.onfocusout = () => tell(root, data, state, undefined);
  grid.onkeydown = (event) => {
    const at = state.active ?? 0;
    if (MOVES[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
      state.active = moved(data, at, MOVES[event.key]);
      outline(data, state);
      tell(root, data, state, state.active);
      clearTimeout(state.timer);
      if (!event.shiftKey) state.timer = setTimeout(() => pick(state.active, false), WAIT_MS);
    } else if (event.key === "Enter" || event.key === " ") {
      clearTimeout(state.timer);
      pick(at, event.shiftKey);
    } else if (event.key === "p" && data.pins) {
      setTriggerValue("pinned", { id: data.pinned === data.cells[at][2] ? "" : data.cells[at][2] });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  root.querySelector("button").onclick = () => picture(state, data, root);
  state.watch?.disconnect();
  let width = grid.clientWidth;
  state.watch = new ResizeObserver(() => {
    if (Math.abs(grid.clientWidth - width) > 2) { width = grid.clientWidth; draw(root, data, state); }
  });
  state.watch.observe(grid);
  return () => { state.watch.disconnect(); clearTimeout(state.timer); };
}
