// What every picture of ranks and figures needs.

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
