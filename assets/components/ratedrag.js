
// The compression slider: figures and heatmaps of every rate are here, so that they follow the pointer in the next
// frame. Letting go sends `released` ({rate, n}); the server answers with data that carries the same n as `echo`. The
// rate as a number is typed here too: of two widgets for one value, an answer to the one would undo the other.
const drags = new WeakMap();
const KEYS_REST_MS = 400; // arrow keys held down tell the server once, where they stop

function unpacked(text, plans, layers) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const ranks = [];
  let at = 0;
  for (let plan = 0; plan < plans; plan += 1) {
    const row = new Array(layers);
    for (let layer = 0; layer < layers; layer += 1) {
      let number = 0, shift = 0, byte;
      do {
        byte = bytes[at];
        at += 1;
        number |= (byte & 127) << shift;
        shift += 7;
      } while (byte & 128);
      row[layer] = (plan ? ranks[plan - 1][layer] : 0) + (number & 1 ? -((number + 1) >> 1) : number >> 1);
    }
    ranks.push(row);
  }
  return ranks;
}

function nearestIndex(rates, rate) {
  let best = 0;
  rates.forEach((other, index) => { if (Math.abs(other - rate) < Math.abs(rates[best] - rate)) best = index; });
  return best;
}

class PlanGrid extends RankGrid {
  constructor(panel) {
    super(panel.title);
    this.panel = panel;
  }

  stamp(index) {
    return `${this.panel.verb} ${this.panel.rates[index]} %`;
  }

  begin(index) {
    return `${formatted(this.panel.removed[index], "percent")} removed;`;
  }
}

class RateDrag {
  constructor(root) {
    this.root = root;
    this.n = 0;
    this.bar = element("div", "rate");
    this.input = element("input");
    Object.assign(this.input, { type: "range", min: 1, step: 1, id: "rate" });
    const label = element("label", "", "Compression");
    label.htmlFor = "rate";
    this.number = element("input");
    Object.assign(this.number, { type: "number", min: 1, step: 1, inputMode: "numeric", title: "Type a rate" });
    this.number.setAttribute("aria-label", "Compression, %");
    const typed = element("span", "typed");
    typed.append(this.number, element("span", "", "%"));
    const head = element("div", "head");
    head.append(label, typed);
    this.ticks = element("div", "ticks");
    this.ticks.setAttribute("aria-hidden", "true");
    this.track = element("div", "track");
    this.track.append(this.input, this.ticks);
    this.facts = element("div", "facts");
    this.values = ["Block linears keep", "Whole model", "Size", "Stored dense"].map((name) => {
      const cell = element("div"), value = element("div", "v"), note = element("div", "n");
      cell.append(element("div", "k", name), value, note);
      this.facts.append(cell);
      return [value, note];
    });
    this.signs = element("p", "signs");
    this.bar.append(head, this.track, this.facts);
    this.grids = element("div", "grids");
    root.replaceChildren(this.bar, this.signs, this.grids);
    this.listen();
  }

  update(data, send) {
    this.data = data;
    this.send = send;
    this.input.max = this.number.max = data.largest;
    const colors = getComputedStyle(this.root).getPropertyValue("--st-chart-sequential-colors");
    const panels = JSON.stringify([colors, data.kinds, data.panels]);
    if (panels !== this.shown) {
      this.shown = panels;
      this.ramp = rampOf(this.root);
      this.build();
    }
    // An answer to an older release must not pull the slider away from where it stands by now.
    if (!this.held && !this.typing && !this.timer && !this.waits()) this.input.value = data.rate;
    this.draw();
  }

  build() {
    const { data } = this;
    this.panels = data.panels.map((panel) => this.panel(panel));
    this.grids.replaceChildren(...this.panels.map(({ box }) => box));
    const parts = [];
    const at = (mark, rate) => {
      mark.style.setProperty("--at", (rate - 1) / (data.largest - 1));
      parts.push(mark);
    };
    const ticked = data.panels.find((panel) => panel.key === "learned" && panel.rates.length);
    (ticked?.rates ?? []).filter((rate) => rate <= data.largest).forEach((rate) => at(element("i", "plan"), rate));
    for (let rate = 10; rate <= data.largest; rate += 10) at(element("span", rate % 20 ? "odd" : "", `${rate} %`), rate);
    data.marks.forEach(([rate, sign]) => at(element("b", "", sign), rate));
    this.ticks.replaceChildren(...parts);
    const signs = data.marks.map(([, sign, words]) => `${sign} ${words}`);
    if (ticked) signs.unshift(`❘ recorded plan of ${ticked.title}`);
    this.signs.textContent = signs.join("   ");
  }

  panel(panel) {
    const box = element("section", `panel ${panel.key}`);
    const badge = element("p", "badge", panel.badge);
    const note = element("p", "note", panel.note);
    if (!panel.rates.length) {
      box.append(element("b", "", panel.title), badge, note);
      return { box, panel };
    }
    const grid = new PlanGrid(panel);
    const quality = element("p", "quality");
    box.append(badge, grid.root, quality, note);
    const ranks = unpacked(panel.ranks, panel.rates.length, this.data.cells.length);
    const film = { run: panel.key, blocks: this.data.blocks, kinds: this.data.kinds, cells: this.data.cells, frames: { ranks } };
    return { box, panel, grid, quality, film };
  }

  draw() {
    const { data } = this, rate = +this.input.value, at = rate - 1, { figures } = data;
    let told;
    for (const { panel, grid, quality, film } of this.panels) {
      if (!grid) continue;
      const index = nearestIndex(panel.rates, rate);
      if (grid.drawnAt !== index || grid.ramp !== this.ramp) {
        grid.draw(film, index, this.ramp);
        grid.drawnAt = index;
        grid.ramp = this.ramp;
      }
      const away = Math.abs(panel.rates[index] - rate);
      grid.root.classList.toggle("away", away > 0);
      const said = panel.said[index];
      const of = `at ${panel.rates[index]} %`;
      quality.textContent = [
        away ? `${panel.rates[index]} % is the nearest ${panel.verb.split(" ")[0]} rate to ${rate} %.` : "",
        said ? `${said[0] === "measured" ? `Measured ${of}` : `Forecast ${of}, not measured`}: ${said[1]}` : "",
      ].filter(Boolean).join(" ");
      quality.dataset.kind = said?.[0] ?? "";
      told ??= `${panel.title} ${grid.step.textContent}: ${grid.dense} of ${data.cells.length} layers dense`;
    }
    this.write(rate, [
      [figures.linear[at], `of ${figures.of_linear} parameters`],
      [figures.total[at], `of ${figures.of_total}, ${figures.shrunk[at]} less`],
      [figures.size[at], `of ${figures.of_size}`],
    ], told);
  }

  write(rate, facts, told) {
    const dense = this.panels.find(({ grid }) => grid);
    const rows = [...facts, dense ? this.denseFact(dense, rate) : ["–", "no plan at this rate"]];
    rows.forEach(([value, note], i) => {
      this.values[i][0].textContent = value;
      this.values[i][1].textContent = note;
    });
    this.input.style.setProperty("--share", (rate - 1) / (this.data.largest - 1));
    this.input.setAttribute("aria-valuetext", [
      `${rate} % removed`, `${facts[1][0]} parameters`, facts[2][0], told,
    ].filter(Boolean).join(", "));
    if (!this.typing) this.number.value = rate;
  }

  denseFact({ panel, grid }, rate) {
    const drawn = panel.rates[grid.drawnAt];
    const where = drawn === rate ? "at this rate" : `in its nearest plan, at ${drawn} %`;
    return [`${grid.dense} of ${this.data.cells.length}`, `layers of ${panel.title} ${where}`];
  }

  waits() {
    return this.n > 0 && this.data.echo !== this.n;
  }

  // What is typed moves the slider as soon as it is a rate; what is none is set right when the field is left.
  type(final) {
    const asked = Math.round(this.number.valueAsNumber), { largest } = this.data;
    this.typing = !final;
    if (asked >= 1 && (final || asked <= largest)) this.input.value = asked;
    this.draw();
  }

  rest() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tell(), KEYS_REST_MS);
  }

  tell() {
    clearTimeout(this.timer);
    this.timer = null;
    const rate = +this.input.value;
    if (rate === this.data.rate && !this.waits()) return;
    this.n += 1;
    this.send("released", { rate, n: this.n });
  }

  listen() {
    const { input, number } = this;
    input.addEventListener("pointerdown", () => { this.held = true; });
    for (const name of ["pointerup", "pointercancel"]) input.addEventListener(name, () => { this.held = false; });
    input.addEventListener("input", () => {
      if (this.frame) return;
      this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
    });
    input.addEventListener("change", () => {
      if (this.byKey) this.rest();
      else this.tell();
    });
    input.addEventListener("keydown", () => { this.byKey = true; });
    input.addEventListener("pointerdown", () => { this.byKey = false; });
    input.addEventListener("blur", () => { if (this.timer) this.tell(); });
    number.addEventListener("focus", () => number.select());
    number.addEventListener("input", () => this.type(false));
    number.addEventListener("change", () => { this.type(true); this.rest(); });
    number.addEventListener("blur", () => { this.type(true); if (this.timer) this.tell(); });
    number.addEventListener("keydown", ({ key }) => { if (key === "Enter") { this.type(true); this.tell(); } });
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".ratedrag");
  if (!drags.has(root)) drags.set(root, new RateDrag(root));
  const drag = drags.get(root);
  drag.update(data, setTriggerValue);
  return () => { clearTimeout(drag.timer); cancelAnimationFrame(drag.frame); };
}
