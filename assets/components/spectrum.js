
// Spectra: values above, energy below, over one axis of directions. Redrawn in place, so that a click on the heatmap is
// answered in the next frame. A drag over a plot zooms in, a double click out; a click or Enter sends `cut`
// ({layer, direction}).
const charts = new WeakMap();
const GAP = { left: 56, right: 12, top: 26, between: 26, bottom: 40 };
const HEIGHT = 500, SPLIT = 0.58;

const numbers = (text) => new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

function powers(low, high) {
  const found = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power += 1) found.push(10 ** power);
  return found;
}

function raised(value) {
  const power = Math.round(Math.log10(value));
  const signs = [...`${Math.abs(power)}`].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  return power === 0 ? "1" : `10${power < 0 ? "⁻" : ""}${signs}`;
}

class Pane {
  // One plot: its box on the screen, its scale and how its figures are written.
  constructor(key, spec, top, height) {
    Object.assign(this, { key, spec, top, height });
  }

  fit(curves, from, to) {
    let low = Infinity, high = -Infinity;
    for (const curve of curves) {
      curve.x.forEach((x, i) => {
        const value = curve[this.key][i];
        if (x < from || x > to || !Number.isFinite(value) || (this.spec.log && value <= 0)) return;
        low = Math.min(low, value);
        high = Math.max(high, value);
      });
    }
    if (low > high) [low, high] = this.spec.log ? [0.1, 1] : [0, 1];
    if (this.spec.log) [this.low, this.high] = [Math.log10(low) - 0.05, Math.log10(high) + 0.05];
    else if (this.spec.fixed) [this.low, this.high] = this.spec.fixed;
    else {
      const room = 0.04 * (high - low || 1);
      [this.low, this.high] = [this.spec.zero ? Math.min(0, low) : low - room, high + room];
    }
  }

  y(value) {
    const place = this.spec.log ? Math.log10(value) : value;
    return this.top + this.height * (1 - (place - this.low) / (this.high - this.low || 1));
  }

  ticks() {
    if (this.spec.log) {
      const found = powers(10 ** this.low, 10 ** this.high);
      const every = Math.ceil(found.length / 8);
      return found.filter((_, i) => i % every === 0).map((value) => [value, raised(value)]);
    }
    return niceTicks(this.low, this.high, 5).filter((value) => value <= this.high)
      .map((value) => [value, formatted(value, this.spec.percent ? "percent" : "number").replace("-", "−")]);
  }
}

class SpectrumChart {
  constructor(root) {
    this.root = root;
    this.svg = node("svg", { role: "img", tabindex: 0 });
    this.tip = element("div", "tip");
    this.tip.setAttribute("aria-live", "polite");
    this.tip.hidden = true;
    this.legend = element("div", "keys");
    const foot = element("div", "foot");
    this.save = element("button", "", "Save as PNG");
    this.whole = element("button", "", "Whole axis");
    for (const button of [this.save, this.whole]) button.type = "button";
    foot.append(element("span", "", "A click cuts there, a drag zooms; arrow keys walk along the front curve, Enter cuts"), this.whole, this.save);
    root.replaceChildren(this.svg, this.tip, this.legend, foot);
    this.listen();
    this.watch = new ResizeObserver(() => {
      if (Math.abs(root.clientWidth - this.width) > 2) this.draw();
    });
    this.watch.observe(root);
  }

  update(data, send) {
    this.data = data;
    this.send = send;
    this.curves = data.curves.map((curve) => ({
      ...curve, x: numbers(curve.x), above: numbers(curve.above), below: curve.below ? numbers(curve.below) : new Float32Array(),
    }));
    this.last = Math.max(...this.curves.map(({ x }) => x[x.length - 1]));
    if (this.length !== this.last) this.domain = [1, this.last];
    this.length = this.last;
    if (this.at !== undefined) this.at = Math.min(this.at, this.front.x.length - 1);
    this.svg.setAttribute("aria-label", data.label);
    this.legend.replaceChildren(...this.curves.map((curve) => {
      const key = element("span", "key"), line = node("svg", { width: 26, height: 8, "aria-hidden": true });
      line.append(node("line", { x1: 0, x2: 26, y1: 4, y2: 4, ...this.stroke(curve) }));
      key.append(line, element("span", "", curve.name));
      return key;
    }));
    this.draw();
    this.root.dataset.front = this.front.layer;
  }

  get front() {
    return this.curves[this.curves.length - 1];
  }

  stroke(curve) {
    return { stroke: curve.color, "stroke-width": 2, "stroke-dasharray": curve.dash, fill: "none", "stroke-linejoin": "round" };
  }

  x(direction) {
    return GAP.left + (this.inner * (direction - this.domain[0])) / (this.domain[1] - this.domain[0] || 1);
  }

  draw() {
    const { data, svg } = this;
    this.width = this.root.clientWidth || 520;
    this.inner = this.width - GAP.left - GAP.right;
    for (const [name, value] of Object.entries({ width: this.width, height: HEIGHT, viewBox: `0 0 ${this.width} ${HEIGHT}` })) svg.setAttribute(name, value);
    const room = HEIGHT - GAP.top - GAP.between - GAP.bottom;
    this.panes = [
      new Pane("above", data.above, GAP.top, room * SPLIT),
      new Pane("below", data.below, GAP.top + room * SPLIT + GAP.between, room * (1 - SPLIT)),
    ];
    const clip = `clip-${this.panes.length}-${Math.round(this.width)}`;
    const defs = node("clipPath", { id: clip });
    defs.append(node("rect", { x: GAP.left, y: 0, width: this.inner, height: HEIGHT }));
    const parts = [defs];
    for (const pane of this.panes) {
      pane.fit(this.curves, ...this.domain);
      parts.push(...this.axis(pane));
    }
    parts.push(...this.directions());
    const lines = node("g", { "clip-path": `url(#${clip})` });
    for (const pane of this.panes) {
      for (const curve of this.curves) {
        const path = this.path(curve, pane);
        if (path) lines.append(node("path", { class: "line", d: path, "data-layer": curve.layer, "data-pane": pane.key, ...this.stroke(curve) }));
      }
    }
    this.cursor = node("g", { class: "cursor" });
    parts.push(lines, ...this.marks(), this.cursor);
    svg.replaceChildren(...parts);
    this.whole.hidden = this.domain[0] === 1 && this.domain[1] === this.last;
    if (this.at !== undefined && this.root.getRootNode().activeElement === svg) this.point(this.front, this.at);
  }

  * axis(pane) {
    for (const [value, label] of pane.ticks()) {
      const y = pane.y(value);
      yield node("line", { class: "rule", x1: GAP.left, x2: GAP.left + this.inner, y1: y, y2: y });
      yield node("text", { x: GAP.left - 7, y: y + 4, "text-anchor": "end" }, label);
    }
    const middle = pane.top + pane.height / 2;
    yield node("text", { class: "title", x: 13, y: middle, transform: `rotate(-90 13 ${middle})`, "text-anchor": "middle" }, pane.spec.title);
  }

  * directions() {
    const bottom = HEIGHT - GAP.bottom;
    for (const value of niceTicks(this.domain[0], this.domain[1], Math.max(3, Math.floor(this.inner / 80)))) {
      if (value < this.domain[0] || !Number.isInteger(value)) continue;
      yield node("text", { x: this.x(value), y: bottom + 16, "text-anchor": "middle" }, `${value}`);
    }
    yield node("text", { class: "title", x: GAP.left + this.inner / 2, y: bottom + 34, "text-anchor": "middle" }, "Direction, largest first");
  }

  path(curve, pane) {
    let text = "", pen = "M";
    const values = curve[pane.key];
    for (let i = 0; i < values.length; i += 1) {
      if (!Number.isFinite(values[i]) || (pane.spec.log && values[i] <= 0)) { pen = "M"; continue; }
      text += `${pen}${this.x(curve.x[i]).toFixed(1)} ${pane.y(values[i]).toFixed(1)}`;
      pen = "L";
    }
    return text;
  }

  * marks() {
    const shown = this.data.marks.filter(([rank]) => rank >= this.domain[0] && rank <= this.domain[1]);
    for (const [index, [rank, words, dash]] of shown.entries()) {
      const x = this.x(rank);
      for (const pane of this.panes) {
        yield node("line", { class: "mark", x1: x, x2: x, y1: pane.top, y2: pane.top + pane.height, "stroke-dasharray": dash });
      }
      const left = x > GAP.left + this.inner * 0.8 || (index === 0 && shown.length > 1 && x > GAP.left + 90);
      yield node("text", { class: "marked", x: x + (left ? -3 : 3), y: GAP.top - 5 - 12 * (index > 1), "text-anchor": left ? "end" : "start" }, `${words} ${rank}`);
    }
  }

  nearest(event) {
    const box = this.svg.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const pane = this.panes.find(({ top, height }) => y > top - 8 && y < top + height + 8);
    let best = null;
    for (const curve of pane ? this.curves : []) {
      curve[pane.key].forEach((value, i) => {
        if (curve.x[i] < this.domain[0] || curve.x[i] > this.domain[1] || !Number.isFinite(value)) return;
        const far = Math.hypot(this.x(curve.x[i]) - x, 0.5 * (pane.y(Math.max(value, pane.spec.log ? 1e-30 : -Infinity)) - y));
        if (!best || far < best.far) best = { far, curve, i };
      });
    }
    return best && best.far < 40 ? best : null;
  }

  point(curve, i) {
    this.cursor.replaceChildren(...this.panes.filter(({ key }) => i < curve[key].length).map((pane) => node("circle", {
      cx: this.x(curve.x[i]), cy: pane.y(curve[pane.key][i]), r: 4.5, fill: curve.color,
    })));
    const below = curve.below.length ? `\n${this.data.below.tip.replace("{x}", curve.x[i]).replace("{y}", formatted(curve.below[i], "percent").replace("-", "−"))}` : "";
    this.tip.textContent = `${curve.name}\ndirection ${curve.x[i]}: ${formatted(curve.above[i], "number")} of the largest${below}`;
    this.tip.hidden = false;
    const x = this.x(curve.x[i]);
    this.tip.style.left = `${x + this.tip.offsetWidth + 14 < this.width ? x + 10 : Math.max(0, x - this.tip.offsetWidth - 10)}px`;
    this.tip.style.top = `${GAP.top + 6}px`;
  }

  leave() {
    this.tip.hidden = true;
    this.cursor?.replaceChildren();
  }

  directionAt(event) {
    const share = (event.clientX - this.svg.getBoundingClientRect().left - GAP.left) / this.inner;
    return this.domain[0] + Math.min(1, Math.max(0, share)) * (this.domain[1] - this.domain[0]);
  }

  listen() {
    const { svg } = this;
    let start = null, band = null;
    svg.addEventListener("pointerdown", (event) => { if (event.button === 0) start = event; });
    svg.addEventListener("pointermove", (event) => {
      if (start && Math.abs(event.clientX - start.clientX) > 5) {
        const [one, two] = [this.directionAt(start), this.directionAt(event)].sort((a, b) => a - b);
        band ??= svg.appendChild(node("rect", { class: "band", y: GAP.top, height: HEIGHT - GAP.top - GAP.bottom }));
        band.setAttribute("x", this.x(one));
        band.setAttribute("width", this.x(two) - this.x(one));
        this.leave();
        return;
      }
      const found = this.nearest(event);
      if (found) this.point(found.curve, found.i);
      else this.leave();
    });
    const end = (event) => {
      if (!start) return;
      const [one, two] = [this.directionAt(start), this.directionAt(event)].sort((a, b) => a - b);
      const zoomed = band !== null;
      start = null;
      band?.remove();
      band = null;
      if (zoomed && two - one >= 2) { this.domain = [Math.round(one), Math.round(two)]; this.draw(); }
      if (zoomed) return;
      const found = this.nearest(event);
      if (found && !found.curve.reference) this.cut(found.curve, found.i);
    };
    svg.addEventListener("pointerup", end);
    svg.addEventListener("pointerleave", () => { start = null; band?.remove(); band = null; this.leave(); });
    svg.addEventListener("dblclick", () => this.reset());
    svg.addEventListener("blur", () => this.leave());
    svg.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageDown: -20, PageUp: 20, Home: -1e6, End: 1e6 };
      if (event.key === "Enter" && this.at !== undefined) this.cut(this.front, this.at);
      else if (event.key in steps) {
        this.at = Math.min(this.front.x.length - 1, Math.max(0, (this.at ?? -1) + steps[event.key]));
        this.point(this.front, this.at);
      } else if (event.key === "Escape") this.reset();
      else return;
      event.preventDefault();
    });
    this.whole.onclick = () => this.reset();
    this.save.onclick = () => this.picture();
  }

  reset() {
    this.domain = [1, this.last];
    this.draw();
  }

  cut(curve, i) {
    this.send("cut", { layer: curve.layer, direction: curve.x[i] });
  }

  picture() {
    const copy = this.svg.cloneNode(true), style = getComputedStyle(this.root);
    copy.setAttribute("xmlns", SVG);
    copy.setAttribute("style", `color:${style.color};font:12px sans-serif`);
    copy.prepend(node("rect", { width: "100%", height: "100%", fill: style.getPropertyValue("--st-background-color") }));
    copy.querySelectorAll("text").forEach((text) => text.setAttribute("fill", style.color));
    copy.querySelectorAll(".rule, .mark").forEach((line) => line.setAttribute("stroke", "#8a9593"));
    const image = new Image(), canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [2 * this.width, 2 * HEIGHT];
    image.onload = () => {
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      const link = document.createElement("a");
      link.download = `${this.data.file}.png`;
      link.href = canvas.toDataURL("image/png");
      link.click();
    };
    image.src = `data:image/svg+xml;utf8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".spectrum");
  if (!charts.has(root)) charts.set(root, new SpectrumChart(root));
  const chart = charts.get(root);
  chart.update(data, setTriggerValue);
  return () => chart.watch.disconnect();
}
