// In the page: how long it takes from what a hand does to what the eye sees. All times are the browser's own clock,
// from the event's time stamp (when the browser was told) to the end of the frame that was painted after it.
const lrcMain = () => document.querySelector('[data-testid="stMain"]');

// The task after a frame: what that frame holds has been laid out and painted by then.
const lrcPainted = (then) => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => then(performance.now());
  channel.port2.postMessage(null);
});

// The first element that fits, also inside components, which stand in shadow roots; not what is left of the last page.
function lrcFind(selector) {
  const main = lrcMain();
  if (!main) return null;
  const roots = [...main.querySelectorAll('[data-testid^="stBidiComponent"]')].map((host) => host.shadowRoot ?? host);
  for (const root of [main, ...roots]) {
    for (const found of root.querySelectorAll(selector)) {
      const holder = root === main ? found : root.host ?? root;
      if (!holder.closest('[data-stale="true"]') && found.getBoundingClientRect().height > 0) return found;
    }
  }
  return null;
}

const lrcIdle = () => document.querySelector('[data-testid="stApp"]').dataset.testScriptState === "notRunning";

// What happens after the next event of a kind: `drawn` once the condition holds, `idle` once the script has ended too.
function lrcAfter(kind, condition) {
  window.lrcAnswer = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`not drawn: ${condition}`)), 60000);
    window.addEventListener(kind, (event) => {
      const times = {};
      const look = () => {
        if (!times.found && condition()) {
          times.found = true;
          lrcPainted((now) => { times.drawn = now - event.timeStamp; });
        }
        if (times.drawn && lrcIdle()) resolve({ drawn: times.drawn, idle: performance.now() - event.timeStamp });
        else requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    }, { capture: true, once: true });
  });
}

const lrcShown = (title, selectors) => () =>
  lrcFind("h1")?.textContent.trim() === title && selectors.every((selector) => lrcFind(selector));

// Every move of a drag that changed the slider's value: from the pointer's event to the frame that shows that value.
function lrcWatchDrag(shown) {
  window.lrcMoves = [];
  let moved = 0;
  window.addEventListener("pointermove", (event) => { moved = event.timeStamp; }, true);
  window.addEventListener("input", (event) => {
    const began = moved, value = Number(event.composedPath()[0].value);
    const look = () => lrcPainted((now) => {
      if (shown() === value) window.lrcMoves.push(now - began);
      else if (window.lrcValue === value) look(); // not drawn in this frame; a newer value is its own measure
    });
    window.lrcValue = value;
    look();
  }, true);
}

// The layer whose spectrum is drawn.
const lrcSpectrum = () => lrcFind(".spectrum")?.dataset.front ?? "";

Object.assign(globalThis, { lrcFind, lrcIdle, lrcAfter, lrcShown, lrcSpectrum, lrcWatchDrag });
