// One slider over what was recorded: texts, sizes and measured losses move with it, and no server is asked.
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function model(entry, text, most, goesOn) {
  const card = element("div", "model");
  const name = element("b", "", entry.name);
  name.style.setProperty("--color", entry.color);
  const track = element("div", "track");
  const bar = element("i");
  bar.style.cssText = `width:${(100 * entry.factor) / most}%;background:${entry.color}`; // from zero: twice as long is twice
  track.append(bar);
  const written = !text ? "Nothing was recorded here." : goesOn ? `… ${text.replace(/ …$/, "")} …` : text;
  card.append(name, element("p", text ? "text" : "text none", written), track, element("p", "said", entry.said));
  return card;
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".live");
  const most = Math.max(...data.stops.flatMap((stop) => stop.models.map((entry) => entry.factor)));
  const digest = JSON.stringify(data);
  if (root.digest === digest) return;
  root.digest = digest;
  const label = element("label", "", "Remove ");
  const slider = element("input");
  Object.assign(slider, { type: "range", min: 0, max: data.stops.length - 1, step: 1, value: data.start });
  const now = element("output");
  label.append(slider, now);
  const models = element("div", "models");
  const size = element("div", "size");
  const prompts = element("label", "prompt", "Prompt ");
  const asked = element("select");
  asked.append(...data.prompts.map((one) => element("option", "", one.goes_on ? `${one.prompt} …` : one.prompt)));
  prompts.append(asked);
  root.replaceChildren(label, size, prompts, models,
    element("p", "said", "The most likely text, word for word. A small model repeats itself easily: the bars, perplexity from zero, are the measure."));
  const show = () => {
    const stop = data.stops[+slider.value];
    now.textContent = `${stop.rate} %`;
    slider.setAttribute("aria-valuetext", `${stop.rate} % of the block linears removed, ${stop.size}`);
    const bar = element("i");
    bar.style.width = `${100 * stop.kept}%`;
    size.replaceChildren(element("span", "track"), element("b", "", stop.size));
    size.firstChild.append(bar);
    const prompt = data.prompts[asked.selectedIndex];
    const texts = prompt.texts[+slider.value];
    models.replaceChildren(...stop.models.map((entry, place) => model(entry, texts[place], most, prompt.goes_on)));
  };
  slider.oninput = show;
  asked.onchange = show;
  show();
}
