// A picture with a slider: all frames are here, so that it follows the pointer without asking the server.
// Two buttons play the frames forward and back; letting go tells the server where the slider stands.
const books = new WeakMap();
// The track is much finer than the frames, which need not be spread evenly along it.
const TRACK = 1000;
const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5, Home: -Infinity, End: Infinity };
const BACKWARDS = ["M17 5 7 12l10 7z", "Play backwards"];
const FORWARDS = ["M7 5l10 7-10 7z", "Play"];
const PAUSE = ["M6 5h4v14H6zM14 5h4v14h-4z", "Pause"];

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
    id: data.id, at: 0, timer: null, held: false, svg: find("svg"), base: find(".base"), frame: find(".frame"),
    words: find(".words"), back: find(".back"), forward: find(".forward"), slider: find("input"), output: find("output"),
  };
  book.svg.setAttribute("viewBox", data.viewBox);
  book.base.innerHTML = data.base;
  book.slider.max = TRACK;
  const last = Math.max(1, data.frames.length - 1);
  book.places = data.frames.map((frame, i) => Math.round(TRACK * (frame.place ?? i / last)));
  find("label span").textContent = data.label;
  return book;
}

function show(book, data, at) {
  book.at = Math.min(Math.max(at, 0), data.frames.length - 1);
  const { svg, words, name } = data.frames[book.at];
  book.frame.innerHTML = svg;
  book.words.textContent = words;
  book.svg.setAttribute("aria-label", words);
  if (!book.held) book.slider.value = book.places[book.at];
  book.slider.setAttribute("aria-valuetext", `${data.label} ${name}`);
  book.output.textContent = name;
}

// The frame at the slider. A step without a pointer (by a screen reader) must leave the frame, however near its place.
function atSlider(book) {
  const value = Number(book.slider.value);
  const far = book.places.map((place) => Math.abs(place - value));
  const nearest = far.indexOf(Math.min(...far));
  if (book.held || nearest !== book.at) return nearest;
  return book.at + Math.sign(value - book.places[book.at]);
}

// Drawn signs: fonts lack some of them.
function sign(button, [path, words]) {
  button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg><span>${words}</span>`;
}

function label(book, direction) {
  sign(book.back, direction < 0 ? PAUSE : BACKWARDS);
  sign(book.forward, direction > 0 ? PAUSE : FORWARDS);
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
  book.held = false;
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
    const at = book?.svg.isConnected && data.keep ? book.at : data.start;
    book = build(root, data);
    books.set(parentElement, book);
    stop(book);
    show(book, data, at);
  }
  const tell = () => setStateValue("frame", book.at);
  // While the pointer holds the thumb it follows the pointer, and goes to its frame's place when it is let go.
  book.slider.onpointerdown = () => { book.held = true; };
  book.slider.oninput = () => { stop(book); show(book, data, atSlider(book)); };
  book.slider.onchange = () => { book.held = false; show(book, data, book.at); tell(); };
  book.slider.onpointerup = () => { book.held = false; };
  book.slider.onkeydown = (event) => {
    if (!(event.key in KEYS) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    stop(book);
    book.held = false;
    show(book, data, book.at + KEYS[event.key]);
    tell();
  };
  book.back.onclick = () => play(book, data, -1, tell);
  book.forward.onclick = () => play(book, data, 1, tell);
  return () => stop(book);
}
