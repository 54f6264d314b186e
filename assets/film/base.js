// What every picture of ranks and figures needs.

const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function formatted(value, format) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (format === "percent") return `${+(100 * value).toFixed(1)} %`;
  const size = Math.abs(value);
  if (size >= 1e5) return `${+(value / 1000).toPrecision(3)} k`;
  return size >= 1000 ? (+value.toPrecision(3)).toFixed(0) : `${+value.toPrecision(3)}`;
}

function niceTicks(low, high, count) {
  const span = high - low || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((size) => size >= rough * 0.8);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) ticks.push(+(n * step).toPrecision(12));
  return ticks;
}
