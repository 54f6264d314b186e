// Letters in drawings, which axe leaves out: all of them in the page and in the components' shadow roots whose contrast
// with the page behind is less than 4.5 to 1.
() => {
  const light = (color) => {
    const [r, g, b] = color.map((value) => (value / 255 <= 0.03928 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parts = (text) => {
    const found = text.match(/[\d.]+/g).map(Number);
    if (text.startsWith("color(")) for (const i of [0, 1, 2]) found[i] *= 255; // what color-mix() comes to
    return found.length < 4 ? [...found.slice(0, 3), 1] : found;
  };
  const above = (element) => element.parentElement ?? element.getRootNode().host ?? null;
  const behind = (element) => {
    for (let at = element; at; at = above(at)) {
      const color = parts(getComputedStyle(at).backgroundColor);
      if (color[3] === 1) return color;
    }
    return [255, 255, 255, 1];
  };
  const found = { looked: 0, poor: [] };
  const walk = (root) => {
    for (const text of root.querySelectorAll("svg text")) {
      const style = getComputedStyle(text);
      if (!text.textContent.trim() || !text.getBoundingClientRect().width || style.fill === "none") continue;
      let opacity = Number(style.fillOpacity);
      for (let at = text; at; at = above(at)) opacity *= Number(getComputedStyle(at).opacity);
      if (opacity === 0) continue;
      found.looked += 1;
      const page = behind(text), ink = parts(style.fill), share = opacity * ink[3];
      const [one, two] = [light([0, 1, 2].map((i) => ink[i] * share + page[i] * (1 - share))), light(page)];
      const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
      if (ratio < 4.5) found.poor.push(`${text.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    for (const element of root.querySelectorAll("*")) if (element.shadowRoot) walk(element.shadowRoot);
  };
  walk(document);
  return found;
}
