// The browser's way back leads to what was chosen on the page before. Streamlit writes the next page's parameters into
// the address of the page that is left, and more into the new one's, each an entry of the history of its own: back would
// be the form without its values. Such entries are not made; what a reader changes on a page is one, as ever.
if (!window.lrcHistory) {
  window.lrcHistory = true;
  let touched = true; // the reader did something since the page was opened
  let leaving = false; // a link to another page was followed, and the address is still that of this one
  const push = history.pushState.bind(history);
  history.pushState = (state, title, url) => {
    const here = new URL(url ?? "", location.href).pathname === location.pathname;
    if (here && leaving) return;
    if (here && !touched) {
      history.replaceState(state, title, url);
      return;
    }
    push(state, title, url);
    if (here) return;
    touched = false;
    leaving = false;
  };
  const touch = () => {
    touched = true;
    leaving = false;
  };
  addEventListener("pointerdown", touch, true);
  addEventListener("keydown", touch, true);
  const follow = (event) => {
    const link = event.target.closest?.('[data-testid="stPageLink"] a');
    const away = link && new URL(link.href, location.href).pathname !== location.pathname;
    leaving = Boolean(away) && !(event.button || event.ctrlKey || event.metaKey || event.shiftKey);
  };
  addEventListener("click", follow, true);
}
