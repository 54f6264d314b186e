// The heatmap of the ranks: blocks down, kinds of layer across, coloured by the share of the parameters that is kept.

function rampOf(root) {
  const colors = getComputedStyle(root).getPropertyValue("--st-chart-sequential-colors").split(",");
  const parsed = colors.map((color) => color.trim()).filter((color) => /^#[0-9a-f]{6}$/i.test(color));
  return (parsed.length > 1 ? parsed : ["#f0f4ea", "#0e3444"]).map((color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)));
}

function rampColor(ramp, share) {
  const place = Math.min(1, Math.max(0, share)) * (ramp.length - 1);
  const low = Math.min(Math.floor(place), ramp.length - 2);
  const mixed = ramp[low].map((part, i) => Math.round(part + (ramp[low + 1][i] - part) * (place - low)));
  return `rgb(${mixed.join(",")})`;
}

function keptOf(cell, rank) {
  // [block, kind, full rank, rank from which the layer is dense, p, parameters, b]: k ranks cost the share p k - b k^2
  return rank >= cell[3] ? 1 : rank * cell[4] - rank * rank * cell[6];
}

function kindLabel(kind) {
  // Where columns are narrow, the style leaves out what most names end with.
  const label = element("span", "kind", kind.replace(/_proj$/, ""));
  if (kind.endsWith("_proj")) label.append(element("span", "suffix", "_proj"));
  return label;
}

class RankGrid {
  constructor(title = "Parameters kept by each layer") {
    this.root = element("figure", "ranks");
    this.caption = element("figcaption");
    this.heading = element("b", "", title);
    this.caption.append(this.heading);
    this.step = element("span", "now");
    this.caption.append(this.step);
    this.grid = element("div", "grid");
    this.grid.setAttribute("role", "img");
    this.grid.tabIndex = 0;
    this.legend = element("div", "legend");
    this.legend.setAttribute("aria-hidden", "true");
    this.bar = element("span", "ramp");
    this.legend.append(element("span", "", "0 %"), this.bar, element("span", "", "100 %, dense"));
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    this.tip.setAttribute("aria-live", "polite");
    this.reading = element("p", "reading");
    this.root.append(this.caption, this.grid, this.tip, this.legend, this.reading);
    this.listen();
  }

  title(text) {
    if (this.heading.textContent !== text) this.heading.textContent = text;
  }

  build(film) {
    const shape = JSON.stringify([film.run, film.blocks, film.kinds]);
    if (this.shape === shape) return;
    this.shape = shape;
    this.film = film;
    this.colors = [];
    this.cursor = null;
    this.cells = film.cells.map((_, index) => {
      const cell = element("i");
      cell.dataset.cell = index;
      return cell;
    });
    this.grid.style.gridTemplateColumns = `2.6em repeat(${film.kinds.length}, minmax(0, 1fr))`;
    const every = film.blocks <= 12 ? 1 : film.blocks <= 60 ? 5 : 10;
    const places = new Map(film.cells.map((cell, index) => [`${cell[0]} ${cell[1]}`, index]));
    const parts = [element("span", "corner", "block"), ...film.kinds.map(kindLabel)];
    for (let block = 0; block < film.blocks; block += 1) {
      parts.push(element("span", "row", block % every ? "" : `${block}`));
      film.kinds.forEach((_, kind) => {
        const index = places.get(`${block} ${kind}`);
        parts.push(index === undefined ? element("i", "absent") : this.cells[index]);
      });
    }
    this.grid.style.setProperty("--row", `${Math.max(5, Math.min(34, Math.round(420 / film.blocks)))}px`);
    this.grid.replaceChildren(...parts);
  }

  draw(film, frame, ramp) {
    this.build(film);
    this.film = film;
    this.bar.style.background = `linear-gradient(to right, ${ramp.map((color) => `rgb(${color.join(",")})`).join(", ")})`;
    const ranks = film.frames.ranks[frame];
    this.ranks = ranks;
    if (!ranks) {
      this.reading.textContent = "The first snapshot of the ranks appears here soon.";
      this.step.textContent = "";
      return;
    }
    ranks.forEach((rank, index) => {
      const color = rampColor(ramp, keptOf(film.cells[index], rank));
      if (this.colors[index] === color) return;
      this.colors[index] = color;
      this.cells[index].style.backgroundColor = color;
    });
    this.step.textContent = this.stamp(frame);
    const words = this.words(frame);
    if (this.reading.textContent !== words) this.reading.textContent = words;
    this.grid.setAttribute("aria-label", `Heatmap of ${film.blocks} blocks by ${film.kinds.length} kinds of layer. ${words}`);
    if (!this.tip.hidden && this.shown !== undefined) this.tip.textContent = this.describe(this.shown);
  }

  stamp(frame) {
    return `step ${this.film.frames.step[frame]}`;
  }

  begin(frame) {
    return `At step ${this.film.frames.step[frame]},`;
  }

  words(frame) {
    const { film, ranks } = this;
    const sums = new Map();
    let dense = 0;
    ranks.forEach((rank, index) => {
      const cell = film.cells[index];
      dense += rank >= cell[3];
      const [kept, all] = sums.get(cell[0]) ?? [0, 0];
      sums.set(cell[0], [kept + keptOf(cell, rank) * cell[5], all + cell[5]]);
    });
    const blocks = [...sums].map(([block, [kept, all]]) => [kept / all, block]);
    const least = blocks.reduce((found, one) => (one[0] < found[0] ? one : found));  // of equal ones the first
    const most = blocks.reduce((found, one) => (one[0] > found[0] ? one : found));
    this.dense = dense;
    const start = `${this.begin(frame)} ${dense} of ${ranks.length} layers would be stored dense`;
    if (most[0] - least[0] < 0.005) return `${start}; every block keeps about ${formatted(most[0], "percent")}.`;
    return `${start}; block ${most[1]} keeps most (${formatted(most[0], "percent")}), block ${least[1]} least (${formatted(least[0], "percent")}).`;
  }

  describe(index) {
    const cell = this.film.cells[index];
    const rank = this.ranks?.[index];
    if (rank === undefined) return "";
    const stored = rank >= cell[3] ? "dense" : `low rank, ${formatted(keptOf(cell, rank), "percent")} of its parameters kept`;
    return `Block ${cell[0]}, ${this.film.kinds[cell[1]]}: rank ${rank} of ${cell[2]}, ${stored}`;
  }

  show(index) {
    this.cells?.forEach((cell, i) => cell.classList.toggle("cursor", i === index));
    this.shown = index;
    this.tip.hidden = index === undefined;
    if (index !== undefined) this.tip.textContent = this.describe(index);
  }

  listen() {
    this.grid.addEventListener("pointerover", (event) => {
      const index = event.target.dataset?.cell;
      if (index !== undefined) this.show(+index);
    });
    this.grid.addEventListener("pointerleave", () => this.show(undefined));
    this.grid.addEventListener("blur", () => this.show(undefined));
    this.grid.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      const move = moves[event.key];
      if (!move || !this.film) return;
      event.preventDefault();
      const from = this.film.cells[this.shown ?? 0];
      const wanted = this.shown === undefined ? [from[0], from[1]] : [from[0] + move[0], from[1] + move[1]];
      const found = this.film.cells.findIndex((cell) => cell[0] === wanted[0] && cell[1] === wanted[1]);
      if (found >= 0) this.show(found);
    });
  }
}
