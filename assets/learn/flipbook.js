// A picture with a slider: all frames are here, so that it follows the pointer without asking the server.
// Two buttons play the frames forward and back; letting go tells the server where the slider stands.
const books = new WeakMap();

function build(root, data) {
  root.innerHTML = `
    <svg role="img" preserveAspectRatio="xMidYMid meet"><g class="base"></g><g class="frame"></g></svg>
    <p class="words"></p>
    <div class="controls">
      <button type="button" class="back"></button>
      <button type="button" class="forward"></button>
      <label><span></span><input type="range" min="0" step="1"></label>
      <output></output>
    </div>`;
  const find = (selector) => root.querySelector(selector);
  const book = {
    id: data.id, at: 0, timer: null, svg: find("svg"), base: find(".base"), frame: find(".frame"),
    words: find(".words"), back: find(".back"), forward: find(".forward"), slider: find("input"), output: find("output"),
  };
  book.svg.setAttribute("viewBox", data.viewBox);
  book.base.innerHTML = data.base;
  book.slider.max = data.frames.length - 1;
  find("label span").textContent = data.label;
  return book;
}

function show(book, data, at) {
  book.at = Math.min(Math.max(at, 0), data.frames.length - 1);
  const { svg, words, name } = data.frames[book.at];
  book.frame.innerHTML = svg;
  book.words.textContent = words;
  book.svg.setAttribute("aria-label", words);
  book.slider.value = book.at;
  book.slider.setAttribute("aria-valuetext", `${data.label} ${name}`);
  book.output.textContent = name;
}

function label(book, direction) {
  book.back.textContent = direction < 0 ? "⏸ Pause" : "◀ Back";
  book.forward.textContent = direction > 0 ? "⏸ Pause" : "▶ Play";
}

function stop(book) {
  clearInterval(book.timer);
  book.timer = null;
  book.direction = 0;
  label(book, 0);
}

function play(book, data, direction, tell) {
  const running = book.direction;
  stop(book);
  if (running === direction) return tell();
  const last = direction > 0 ? data.frames.length - 1 : 0;
  if (book.at === last) show(book, data, direction > 0 ? 0 : data.frames.length - 1);
  book.direction = direction;
  label(book, direction);
  book.timer = setInterval(() => {
    show(book, data, book.at + direction);
    if (book.at === last) { stop(book); tell(); }
  }, data.interval);
}

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const root = parentElement.querySelector(".flipbook");
  let book = books.get(parentElement);
  if (!book || book.id !== data.id) {
    if (book) stop(book);
    const at = book && book.svg.isConnected && data.keep ? book.at : data.start;
    book = build(root, data);
    books.set(parentElement, book);
    stop(book);
    show(book, data, at);
  }
  const tell = () => setStateValue("frame", book.at);
  book.slider.oninput = () => { stop(book); show(book, data, Number(book.slider.value)); };
  book.slider.onchange = tell;
  book.back.onclick = () => play(book, data, -1, tell);
  book.forward.onclick = () => play(book, data, 1, tell);
  return () => stop(book);
}
