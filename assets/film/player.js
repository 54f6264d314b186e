// The player of a training run: play, speed, scrub, zoom. The page hands in the whole film; while a run learns it hands
// in a longer one every few seconds, and nothing that the viewer has set is lost.

const SECONDS = 12; // the whole film at normal speed
const SPEEDS = [0.25, 0.5, 1, 2, 4];
globalThis.__lrcFilms ??= new Map();
const remembered = globalThis.__lrcFilms; // by run: what the viewer has set, whatever is mounted anew

class Player {
  constructor(root) {
    this.root = root;
    this.playing = false;
    this.controls();
    this.grid = new RankGrid();
    this.second = new RankGrid("");
    this.runs = element("p", "runs");
    this.plots = element("div", "plots");
    this.grids = element("div", "grids");
    this.grids.append(this.grid.root);
    const stage = element("div", "stage");
    stage.append(this.grids, this.plots);
    this.table = element("details", "table");
    const scroll = element("div", "scroll");
    Object.assign(scroll, { tabIndex: 0, role: "region", ariaLabel: "The figures as tables" });
    this.table.append(element("summary", "", "The figures as tables"), scroll);
    this.table.addEventListener("toggle", () => this.draw());
    root.replaceChildren(this.bar, this.runs, stage, this.table);
    this.watcher = new ResizeObserver(() => this.film && this.draw());
    this.watcher.observe(root);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.recolor = () => this.film && this.draw();
    this.scheme.addEventListener("change", this.recolor);
  }

  controls() {
    this.bar = element("div", "bar");
    this.bar.setAttribute("role", "group");
    this.bar.setAttribute("aria-label", "Playback");
    this.play = element("button", "play");
    this.play.type = "button";
    this.play.onclick = () => (this.playing ? this.stop() : this.start());
    this.scrub = element("input", "scrub");
    Object.assign(this.scrub, { type: "range", step: 1 });
    this.scrub.setAttribute("aria-label", "Step");
    this.scrub.oninput = () => this.seek(+this.scrub.value);
    this.clock = element("output", "clock");
    const label = element("label", "speed", "Speed ");
    this.speed = element("select");
    for (const value of SPEEDS) {
      const option = element("option", "", `${value} ×`);
      option.value = value;
      this.speed.append(option);
    }
    this.speed.onchange = () => { this.set.speed = +this.speed.value; };
    label.append(this.speed);
    this.latest = this.button("latest", "Latest step", () => this.seek(null));
    this.whole = this.button("whole", "Show all steps", () => this.zoom(null));
    this.bar.append(this.play, this.scrub, this.clock, label, this.latest, this.whole);
  }

  button(name, text, action) {
    const made = element("button", name, text);
    made.type = "button";
    made.onclick = action;
    made.hidden = true;
    return made;
  }

  // What the viewer has set. position null: at the newest step; zoom null: all steps.
  get set() {
    if (!remembered.has(this.film.run)) remembered.set(this.film.run, { position: null, zoom: null, speed: 1 });
    return remembered.get(this.film.run);
  }

  get ends() {
    const all = [this.film, this.film.over].filter(Boolean).map((film) => film.ticks.step).filter((steps) => steps.length);
    return [Math.min(...all.map((steps) => steps[0]), Infinity), Math.max(...all.map((steps) => steps[steps.length - 1]), 0)].map((end) => (Number.isFinite(end) ? end : 0));
  }

  get position() {
    const [first, last] = this.ends;
    return Math.min(last, Math.max(first, this.set.position ?? last));
  }

  update(film) {
    if (this.film && this.film.run !== film.run) this.stop();
    this.film = film;
    const specs = JSON.stringify(film.charts);
    if (this.specs !== specs) {
      this.specs = specs;
      const on = { seek: (step) => this.seek(step), zoom: (range) => this.zoom(range), move: (by) => this.move(by) };
      this.charts = film.charts.map((spec) => new LineChart(spec, on));
      this.plots.replaceChildren(...this.charts.map((chart) => chart.root));
    }
    this.root.style.setProperty("--method", film.color);
    this.root.style.setProperty("--over", film.over && film.over.color !== film.color ? film.over.color : "var(--st-text-color)");
    this.name(film);
    this.speed.value = this.set.speed;
    this.draw();
  }

  name(film) {
    // Which line and which map is whose, where a second run is laid over the first.
    const { over } = film;
    Object.assign(this.runs, { hidden: !over });
    if (!over) this.second.root.remove();
    else if (!this.second.root.parentNode) this.grids.append(this.second.root);
    this.root.classList.toggle("two", Boolean(over));
    this.grid.title(over ? film.title : "Parameters kept by each layer");
    if (!over) return;
    this.second.title(over.title);
    this.runs.replaceChildren(element("i", "key"), `${film.title} (${film.detail})`, element("i", "key over"), `over it: ${over.title} (${over.detail})`);
  }

  seek(step) {
    this.stop(false);
    this.set.position = step === null ? null : Math.round(step);
    this.draw();
  }

  move(by) {
    const { step } = this.film.ticks;
    const index = Math.min(step.length - 1, Math.max(0, lastAt(step, this.position) + by));
    this.seek(step[index]);
  }

  zoom(range) {
    this.set.zoom = range;
    this.draw();
  }

  start() {
    const [first, last] = this.ends;
    if (this.position >= last) this.set.position = first;
    this.playing = true;
    let before = null;
    const tick = (now) => {
      if (!this.playing) return;
      const [from, to] = this.ends;
      const passed = before === null ? 0 : Math.min(0.25, (now - before) / 1000);
      before = now;
      this.set.position = this.position + (passed * this.set.speed * (to - from)) / SECONDS;
      if (this.set.position >= to) {
        this.set.position = null;
        this.playing = false;
      }
      this.draw();
      if (this.playing) this.request = requestAnimationFrame(tick);
    };
    this.request = requestAnimationFrame(tick);
    this.draw();
  }

  stop(redraw = true) {
    this.playing = false;
    cancelAnimationFrame(this.request);
    if (redraw && this.film) this.draw();
  }

  draw() {
    const { film, position } = this;
    const [first, last] = this.ends;
    const whole = [Math.min(first, 1), film.live ? Math.max(last, film.total) : last];
    const zoom = this.set.zoom;
    const domain = zoom ? [Math.max(zoom[0], whole[0]), Math.min(zoom[1], whole[1])] : whole;
    for (const chart of this.charts) chart.draw({ film, ticks: film.ticks, domain, whole: [first, last], position });
    const frame = Math.max(0, lastAt(film.frames.step, position));
    this.grid.draw(film, frame, rampOf(this.root));
    if (film.over) this.second.draw(film.over, Math.max(0, lastAt(film.over.frames.step, position)), rampOf(this.root));
    this.drawControls(first, last, position);
    if (this.table.open) this.tabulate(frame, lastAt(film.ticks.step, position));
  }

  drawControls(first, last, position) {
    const { film } = this;
    Object.assign(this.scrub, { min: first, max: last, value: Math.floor(position) });
    const removed = formatted(film.ticks.removed[lastAt(film.ticks.step, position)], "percent");
    const { over } = film;
    const beside = over ? ` and ${formatted(over.ticks.removed[Math.max(0, lastAt(over.ticks.step, position))], "percent")}` : "";
    this.clock.textContent = `step ${Math.floor(position)} of ${film.live ? Math.max(film.total, last) : last}, ${removed}${beside} removed`;
    this.scrub.setAttribute("aria-valuetext", this.clock.textContent);
    const word = this.playing ? "Pause" : "Play";
    if (this.play.getAttribute("aria-label") !== word) {
      this.play.setAttribute("aria-label", word);
      this.play.textContent = this.playing ? "❚❚ Pause" : "▶ Play";
    }
    this.latest.hidden = !(film.live && this.set.position !== null);
    this.whole.hidden = this.set.zoom === null;
    this.root.dataset.step = Math.floor(position);
    this.root.dataset.zoom = this.set.zoom ? this.set.zoom.map((step) => step.toFixed(1)).join(" ") : "";
  }

  tabulate(frame, tick) {
    if (this.playing) return; // the table shows where the film stands still
    const { film, position } = this;
    const { over } = film;
    const second = over ? this.tablesOf(over, Math.max(0, lastAt(over.frames.step, position)), lastAt(over.ticks.step, position), `, ${over.title}`) : [];
    this.table.querySelector(".scroll").replaceChildren(...this.tablesOf(film, frame, tick, over ? `, ${film.title}` : ""), ...second);
  }

  tablesOf(film, frame, tick, whose) {
    const names = film.charts.flatMap((spec) => spec.series.map((name, i) => [name, `${spec.series.length > 1 ? `${spec.label}, ${spec.labels[i]}` : spec.label} (${spec.unit})`, spec.format]));
    const rows = film.ticks.step.slice(0, tick + 1).map((step, i) => [step, ...names.map(([name, , format]) => formatted(film.ticks[name]?.[i], format))]);
    const layers = (film.frames.ranks[frame] ?? []).map((rank, i) => {
      const cell = film.cells[i];
      return [cell[0], film.kinds[cell[1]], rank, cell[2], formatted(keptOf(cell, rank), "percent"), rank >= cell[3] ? "dense" : "low rank"];
    });
    return [
      tableOf(`Figures by step${whose}`, ["Step", ...names.map(([, title]) => title)], rows),
      tableOf(`Ranks at step ${film.frames.step[frame] ?? "–"}${whose}`, ["Block", "Layer", "Rank", "Full rank", "Kept", "Stored"], layers),
    ];
  }

  destroy() {
    this.stop(false);
    this.watcher.disconnect();
    this.scheme.removeEventListener("change", this.recolor);
  }
}

function tableOf(title, header, rows) {
  const table = element("table");
  table.append(element("caption", "", title));
  const head = table.createTHead().insertRow();
  for (const name of header) {
    const cell = element("th", "", name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const value of row) line.insertCell().textContent = value;
  }
  return table;
}

export default function mount({ data, parentElement }) {
  const root = parentElement.querySelector(".film");
  root.player ??= new Player(root);
  root.player.update(data);
  return () => {
    root.player?.destroy();
    root.player = null;
  };
}
