// One line chart of a training run: figures over steps, in a small SVG that is redrawn in place. No library, no network.

const MARGIN = { left: 48, right: 10, top: 8, bottom: 22 }; // around labels of TYPE pixels; larger ones get more room
const TYPE = 11;

function lastAt(steps, position) {
  // Index of the last entry that is not behind the position; -1 when there is none.
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= position) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

class LineChart {
  // on: { seek(step), zoom([from, to] or null) }
  constructor(spec, on) {
    this.spec = spec;
    this.on = on;
    this.root = element("figure", `chart chart-${spec.key}`);
    this.root.dataset.key = spec.key;
    const caption = element("figcaption");
    this.now = element("span", "now");
    caption.append(element("b", "", spec.label), this.now, element("span", "unit", spec.unit));
    this.root.append(caption);
    if (!spec.series.length) {
      this.root.append(element("p", "none", "Not recorded by this run."));
      return;
    }
    this.svg = node("svg", { class: "plot", role: "img", tabindex: "0" });
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    this.reading = element("p", "reading");
    this.root.append(this.svg, this.tip, this.reading);
    this.listen();
  }

  draw(view) {
    if (!this.svg) return;
    this.view = view;
    const { ticks, domain, position } = view;
    const width = this.svg.clientWidth || 300;
    const height = this.svg.clientHeight || 130;
    this.scale = (parseFloat(getComputedStyle(this.svg).fontSize) || TYPE) / TYPE;
    this.margin = Object.fromEntries(Object.entries(MARGIN).map(([side, room]) => [side, room * this.scale]));
    const { left, right, top, bottom } = this.margin;
    this.inner = { width: Math.max(10, width - left - right), height: Math.max(10, height - top - bottom) };
    const columns = this.spec.series.map((name) => ticks[name] ?? []);
    const over = view.film.over?.ticks;
    const beside = over?.[this.spec.series[0]] ?? [];
    const [low, high] = this.limits([...columns.map((column) => [ticks.step, column]), [over?.step ?? [], beside]], domain);
    this.x = (step) => ((step - domain[0]) / (domain[1] - domain[0] || 1)) * this.inner.width;
    this.y = (value) => (1 - (value - low) / (high - low || 1)) * this.inner.height;
    const parts = [...this.axes(low, high, domain)];
    const frame = node("svg", { x: left, y: top, width: this.inner.width, height: this.inner.height, overflow: "hidden" });
    const until = lastAt(ticks.step, position) + 1;
    columns.forEach((column, series) => {
      const shared = { fill: "none", "data-series": this.spec.series[series], class: series ? "line second" : "line" };
      frame.append(node("path", { ...shared, class: `${shared.class} ahead`, d: this.path(ticks.step, column, 0, column.length) }));
      frame.append(node("path", { ...shared, d: this.path(ticks.step, column, 0, until) }));
    });
    if (beside.length) {
      const shared = { fill: "none", "data-over": this.spec.series[0] };
      frame.append(node("path", { ...shared, class: "line over ahead", d: this.path(over.step, beside, 0, beside.length) }));
      frame.append(node("path", { ...shared, class: "line over", d: this.path(over.step, beside, 0, lastAt(over.step, position) + 1) }));
    }
    frame.append(node("line", { class: "playhead", x1: this.x(position), x2: this.x(position), y1: 0, y2: this.inner.height }));
    this.band = node("rect", { class: "band", y: 0, height: this.inner.height, width: 0 });
    frame.append(this.band);
    this.svg.replaceChildren(...parts, frame);
    this.say(until - 1);
  }

  limits(lines, domain) {
    let low = Infinity;
    let high = -Infinity;
    for (const [steps, column] of lines) {
      column.forEach((value, i) => {
        if (value === null || steps[i] < domain[0] || steps[i] > domain[1]) return;
        low = Math.min(low, value);
        high = Math.max(high, value);
      });
    }
    if (!Number.isFinite(low)) return [0, 1];
    if (this.spec.zero) low = Math.min(0, low);
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    return [this.spec.zero && low === 0 ? 0 : low - room, high + room];
  }

  *axes(low, high, domain) {
    const { scale, inner, margin: { left, top } } = this;
    for (const value of niceTicks(low, high, 4)) {
      const y = top + this.y(value);
      yield node("line", { class: "grid", x1: left, x2: left + inner.width, y1: y, y2: y });
      yield node("text", { x: left - 6 * scale, y: y + 3.5 * scale, "text-anchor": "end" }, formatted(value, this.spec.format));
    }
    const below = top + inner.height + 16 * scale;
    for (const step of niceTicks(domain[0], domain[1], Math.max(2, Math.floor(inner.width / (55 * scale))))) {
      if (!Number.isInteger(step)) continue;
      yield node("text", { x: left + this.x(step), y: below, "text-anchor": "middle" }, `${step}`);
    }
    yield node("text", { class: "axis", x: left - 6 * scale, y: below, "text-anchor": "end" }, "step");
  }

  path(steps, column, from, to) {
    let text = "";
    let pen = "M";
    for (let i = from; i < to; i += 1) {
      if (column[i] === null || column[i] === undefined) {
        pen = "M";
        continue;
      }
      text += `${pen}${this.x(steps[i]).toFixed(1)} ${this.y(column[i]).toFixed(1)}`;
      pen = "L";
    }
    return text;
  }

  say(index) {
    const { ticks, film } = this.view;
    const column = ticks[this.spec.series[0]];
    const { over } = film;
    const place = over ? lastAt(over.ticks.step, this.view.position) : -1;
    const other = over?.ticks[this.spec.series[0]];
    this.now.textContent = formatted(column[index], this.spec.format) + (other ? ` / ${formatted(other[Math.max(0, place)], this.spec.format)}` : "");
    const beside = other && place >= 0 ? ` Over it: ${readingOf(this.spec, over.ticks, place, over)}` : "";
    const words = index < 0 ? "" : readingOf(this.spec, ticks, index, film) + beside + (over && !other ? " Not recorded by the second run." : "");
    if (this.reading.textContent !== words) this.reading.textContent = words;
    this.svg.setAttribute("aria-label", `${this.spec.label}, ${this.spec.unit}, over the training steps. ${words}`);
  }

  stepAt(event) {
    const box = this.svg.getBoundingClientRect();
    const [from, to] = this.view.domain;
    const share = (event.clientX - box.left - this.margin.left) / this.inner.width;
    return from + Math.min(1, Math.max(0, share)) * (to - from);
  }

  listen() {
    let start = null;
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      start = event.clientX;
      this.svg.setPointerCapture(event.pointerId);
    });
    this.svg.addEventListener("pointermove", (event) => {
      this.hover(event);
      if (start === null) return;
      const left = this.svg.getBoundingClientRect().left + this.margin.left;
      this.band.setAttribute("x", Math.min(start, event.clientX) - left);
      this.band.setAttribute("width", Math.abs(event.clientX - start));
    });
    this.svg.addEventListener("pointerup", (event) => {
      if (start === null) return;
      const chosen = [this.stepAt({ clientX: start }), this.stepAt(event)].sort((a, b) => a - b);
      if (Math.abs(event.clientX - start) > 6 && chosen[1] - chosen[0] >= 1) this.on.zoom(chosen);
      else this.on.seek(chosen[1]);
      start = null;
      this.band.setAttribute("width", 0);
    });
    this.svg.addEventListener("pointercancel", () => { start = null; });
    this.svg.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.svg.addEventListener("dblclick", () => this.on.zoom(null));
    this.svg.addEventListener("keydown", (event) => {
      const { domain, position, whole } = this.view;
      const half = (domain[1] - domain[0]) / 4;
      const around = Math.min(Math.max(position, domain[0] + half), domain[1] - half);
      const actions = {
        ArrowLeft: () => this.on.move(-1),
        ArrowRight: () => this.on.move(1),
        Home: () => this.on.seek(whole[0]),
        End: () => this.on.seek(whole[1]),
        "+": () => half >= 1 && this.on.zoom([around - half, around + half]),
        "-": () => this.on.zoom(null),
        Escape: () => this.on.zoom(null),
      };
      const action = actions[event.key === "=" ? "+" : event.key];
      if (!action) return;
      event.preventDefault();
      action();
    });
  }

  hover(event) {
    const { ticks } = this.view;
    const step = this.stepAt(event);
    const before = lastAt(ticks.step, step);
    const index = before + 1 < ticks.step.length && (before < 0 || ticks.step[before + 1] - step < step - ticks.step[before]) ? before + 1 : before;
    if (index < 0) return;
    const values = this.spec.series.map((name, i) => `${this.spec.labels[i]} ${formatted(ticks[name]?.[index], this.spec.format)}`);
    this.tip.textContent = `step ${ticks.step[index]}: ${values.join(", ")}`;
    this.tip.hidden = false;
    const left = Math.min(event.clientX - this.root.getBoundingClientRect().left + 10, this.root.clientWidth - this.tip.offsetWidth);
    this.tip.style.left = `${Math.max(0, left)}px`;
  }
}

function readingOf(spec, ticks, index, film) {
  // One sentence on what the line has done up to here, from its own numbers.
  const column = ticks[spec.series[0]].slice(0, index + 1);
  const say = (value) => formatted(value, spec.format);
  const known = column.map((value, i) => [value, ticks.step[i]]).filter(([value]) => value !== null);
  if (!known.length) return "";
  const values = known.map(([value]) => value);
  const [first, last] = [values[0], values[values.length - 1]];
  if (spec.key === "removed") {
    if (film.removed === null) return `${say(last)} of the block linears' parameters are removed; the target is ${film.target}.`;
    const reached = known.find(([value]) => value >= film.removed - 1e-6);
    if (reached) return `The target of ${say(film.removed)} was first reached at step ${reached[1]}.`;
    return `${say(last)} of the block linears' parameters are removed; the target is ${say(film.removed)}.`;
  }
  const top = known.reduce((best, entry) => (entry[0] > best[0] ? entry : best));
  if (spec.key === "speed") {
    const middle = [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
    return `Half of the time at least ${say(middle)} tokens/s.`;
  }
  if (spec.key === "memory") return `At most ${say(top[0])} MB, at step ${top[1]}.`;
  if (spec.key === "entropy") return `From ${say(first)} to ${say(last)} bits: 0 is decided, 1 is a toss-up.`;
  const bottom = known.reduce((best, entry) => (entry[0] < best[0] ? entry : best));
  const dip = bottom[0] < Math.min(first, last) ? `, lowest ${say(bottom[0])} at step ${bottom[1]}` : "";
  return `From ${say(first)} to ${say(last)}; highest ${say(top[0])} at step ${top[1]}${dip}.`;
}
