// The presenter: all slides are here, so that a key turns the page at once. The film's player stands above in this module.
const SLIDE = "pr_slide";
// Of the whole document: inside a component no browser heeds a page's size, and what shows beside slides is not ours.
const PAPER = `@page { size: 297mm 167mm; margin: 0; }
@media print { html, body, [data-testid="stApp"] { background: #fff !important; } }`;

class Deck {
  constructor(root, tell) {
    this.root = root;
    this.tell = tell;
    this.onKey = (event) => this.key(event);
    this.onScreen = () => this.screen();
    this.onState = () => this.show(this.asked(), false);
    this.onPrint = () => this.fitPaper();
    this.onSize = () => this.sections && this.fit(this.sections[this.at]);
    document.addEventListener("keydown", this.onKey, true);
    document.addEventListener("fullscreenchange", this.onScreen);
    window.addEventListener("popstate", this.onState);
    window.addEventListener("resize", this.onSize);
    window.addEventListener("beforeprint", this.onPrint);
    this.paper = document.head.appendChild(document.createElement("style"));
    this.paper.textContent = PAPER;
  }

  update(data) {
    const digest = JSON.stringify(data.slides);
    if (this.digest !== digest) {
      this.digest = digest;
      this.data = data;
      this.build();
    }
    this.film(data.film);
    this.show(this.at ?? this.asked(), false);
  }

  build() {
    this.sections = this.data.slides.map((slide, i) => {
      const section = element("section", `slide slide-${slide.key}`);
      section.setAttribute("aria-roledescription", "slide");
      section.setAttribute("aria-label", `${i + 1} of ${this.data.slides.length}: ${slide.title}`);
      const content = element("div", "body");
      content.innerHTML = slide.body;
      section.append(element("h1", "", slide.title), content);
      if (slide.reading) section.append(element("p", "reading", slide.reading));
      if (slide.terms.length) section.append(this.terms(slide.terms));
      if (slide.runs.length) section.append(this.origin(slide));
      if (slide.notes) section.append(this.notes(slide.notes));
      return section;
    });
    const stage = element("div", "stage-of-slides");
    stage.append(...this.sections);
    this.swipe(stage);
    this.said = element("p", "said");
    this.said.setAttribute("aria-live", "polite");
    this.spoken = this.notes("");
    this.root.replaceChildren(stage, this.spoken, this.controls(), this.said);
  }

  // What the words on the slide mean, for those who meet them here.
  terms(terms) {
    const list = element("dl", "terms");
    for (const [term, meaning] of terms) {
      const entry = element("div");
      entry.append(element("dt", "", term), element("dd", "", meaning));
      list.append(entry);
    }
    return list;
  }

  // Where the figures come from; the ids are for who wants to look them up.
  origin({ runs, shipped }) {
    const line = element("p", "origin", `From ${runs.length} ${shipped ? "shipped " : ""}run${runs.length > 1 ? "s" : ""} `);
    const copy = element("button", "copy", runs.length > 1 ? "Copy their ids" : "Copy its id");
    copy.type = "button";
    copy.title = runs.join(", ");
    copy.onclick = () => {
      navigator.clipboard?.writeText(runs.join("\n")).then(() => { copy.textContent = "Copied"; }, () => {});
    };
    line.append(copy);
    return line;
  }

  notes(text) {
    const notes = element("aside", "notes", text);
    notes.setAttribute("aria-label", "Notes for the speaker");
    notes.hidden = true;
    return notes;
  }

  toggleNotes() {
    this.noted = !this.noted;
    this.speak();
    this.fit(this.sections[this.at]);
  }

  // On the screen the notes of the slide that is shown stand below it; those on the slides are for paper.
  speak() {
    this.spoken.textContent = this.data.slides[this.at].notes;
    this.spoken.hidden = !this.noted || !this.spoken.textContent;
    this.root.classList.toggle("noted", !this.spoken.hidden);
  }

  controls() {
    const bar = element("nav", "turns");
    bar.setAttribute("aria-label", "Slides");
    const button = (name, path, label, action) => {
      const made = element("button", name);
      made.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;
      made.type = "button";
      made.setAttribute("aria-label", label);
      made.title = label;
      made.onclick = action;
      return made;
    };
    this.back = button("back", "M19 12H5m6-6-6 6 6 6", "Slide before (left arrow)", () => this.show(this.at - 1));
    this.next = button("next", "M5 12h14m-6-6 6 6-6 6", "Next slide (right arrow or space)", () => this.show(this.at + 1));
    this.count = element("output", "count");
    this.hint = button("hint", "M5 4h14v11H9l-4 4zM8 8h8M8 11h5", "Notes for the speaker (N)", () => this.toggleNotes());
    this.print = button("print", "M7 8V3h10v5M7 17H4v-7h16v7h-3M7 14h10v7H7z", "Print, or save as PDF (P)", () => print());
    this.full = button("full", "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5", "Full screen (F)", () => this.toggle());
    this.quit = button("quit", "M6 6l12 12M18 6 6 18", "Leave (Escape)", () => this.leave());
    bar.append(this.back, this.count, this.next, this.hint, this.print, this.full, this.quit);
    return bar;
  }

  film(film) {
    const place = this.root.querySelector(".slide .film");
    if (!place || !film) return;
    this.root.style.setProperty("--blocks", film.blocks);
    this.unmountFilm ??= mountFilm({ data: film, parentElement: this.root });
  }

  asked() {
    const wanted = parseInt(new URLSearchParams(location.search).get(SLIDE) ?? "1", 10);
    return Number.isNaN(wanted) ? 0 : wanted - 1;
  }

  show(wanted, mark = true) {
    const last = this.sections.length - 1;
    const at = Math.min(last, Math.max(0, wanted));
    const turned = at !== this.at;
    this.at = at;
    this.sections.forEach((section, i) => { section.hidden = i !== at; });
    const shown = this.sections[at];
    shown.scrollTop = 0;
    this.speak();
    if (turned) this.fit(shown);
    shown.tabIndex = shown.scrollHeight > shown.clientHeight + 1 ? 0 : -1; // what scrolls must be reached by key
    this.count.textContent = `${at + 1} / ${last + 1}`;
    this.back.disabled = at === 0;
    this.next.disabled = at === last;
    this.root.dataset.slide = at + 1;
    if (turned) this.said.textContent = shown.getAttribute("aria-label");
    if (turned && mark) this.address();
    if (turned) this.roll(shown);
  }

  // The film begins when its slide is shown, and rests behind the others.
  roll(shown) {
    const player = this.root.querySelector(".slide .film")?.player;
    if (!player || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    if (!shown.contains(player.root)) player.stop(false);
    else if (!player.playing) {
      player.seek(player.ends[0]);
      player.start();
    }
  }

  // A slide that holds more than its screen has room for is set smaller, down to a size that can still be read from afar;
  // only what then does not fit scrolls. On a phone everything scrolls.
  fit(shown) {
    shown.style.fontSize = "";
    shown.classList.remove("tight");
    if (innerWidth <= 700) return;
    shown.classList.toggle("tight", shown.scrollHeight > shown.clientHeight);
    for (let size = 0.95; size > 0.7 && shown.scrollHeight > shown.clientHeight; size -= 0.05) shown.style.fontSize = `${size}em`;
  }

  // A page cannot scroll: every slide that holds more, with its notes, is printed smaller.
  fitPaper() {
    this.root.classList.add("paper");
    for (const slide of this.sections) {
      const size = slide.style.fontSize;
      slide.style.fontSize = "";
      for (let fit = 1; fit > 0.55; fit -= 0.05) {
        slide.style.setProperty("--fit", fit);
        if (slide.scrollHeight <= slide.clientHeight) break;
      }
      slide.style.fontSize = size;
    }
    this.root.classList.remove("paper");
  }

  address() {
    const url = new URL(location.href);
    url.searchParams.set(SLIDE, this.at + 1);
    history.replaceState(history.state, "", url);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const [target] = event.composedPath();
    if (event.key === "Escape") return this.stop(event, () => { if (!document.fullscreenElement) this.leave(); });
    if (target.closest?.("input, select, textarea")) return; // the film's own slider
    const onButton = target.closest?.("button, summary, a");
    if (event.key === " " && onButton) return;
    if (target.closest?.(".film [tabindex], .figures [tabindex]") && event.key.startsWith("Arrow")) return;
    const moves = {
      ArrowRight: 1, PageDown: 1, " ": event.shiftKey ? -1 : 1, ArrowLeft: -1, PageUp: -1,
      Home: -this.sections.length, End: this.sections.length,
    };
    if (event.key in moves) this.stop(event, () => this.show(this.at + moves[event.key]));
    const keys = { f: () => this.toggle(), n: () => this.toggleNotes(), p: () => print() };
    const action = keys[event.key.toLowerCase()];
    if (action) this.stop(event, action);
  }

  stop(event, then) {
    event.preventDefault();
    event.stopPropagation();
    then();
  }

  swipe(stage) {
    let from = null;
    stage.addEventListener("touchstart", (event) => {
      const inside = event.composedPath()[0].closest?.(".film, .figures");
      from = inside || event.touches.length > 1 ? null : [event.touches[0].clientX, event.touches[0].clientY];
    }, { passive: true });
    stage.addEventListener("touchend", (event) => {
      if (!from) return;
      const [x, y] = [event.changedTouches[0].clientX - from[0], event.changedTouches[0].clientY - from[1]];
      from = null;
      if (Math.abs(x) > 50 && Math.abs(x) > 2 * Math.abs(y)) this.show(this.at + (x < 0 ? 1 : -1));
    });
  }

  toggle() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.().catch(() => {});
  }

  screen() {
    const label = document.fullscreenElement ? "Leave full screen (F)" : "Full screen (F)";
    this.full.setAttribute("aria-label", label);
    this.full.title = label;
  }

  leave() {
    if (document.fullscreenElement) document.exitFullscreen();
    this.tell("left", true);
  }

  destroy() {
    document.removeEventListener("keydown", this.onKey, true);
    document.removeEventListener("fullscreenchange", this.onScreen);
    window.removeEventListener("popstate", this.onState);
    window.removeEventListener("resize", this.onSize);
    window.removeEventListener("beforeprint", this.onPrint);
    this.paper.remove();
    this.unmountFilm?.();
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".deck");
  root.deck ??= new Deck(root, setTriggerValue);
  root.deck.tell = setTriggerValue;
  root.deck.update(data);
  return () => {
    root.deck?.destroy();
    root.deck = null;
  };
}
