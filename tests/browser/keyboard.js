// What the Tab key has reached, also inside components' shadow roots, and what can be used but was not reached.
(() => {
  const stops = new Map();
  let left = null;
  const active = () => {
    let at = document.activeElement;
    while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
    return at === document.body ? null : at;
  };
  const usable = "a[href], button, input, select, textarea, summary, [role=slider], [role=grid]";
  // One stop stands for its group: arrows move in it, and Delete removes a tag.
  const groups = "[role=radiogroup], [role=toolbar], [role=tablist], [data-tag], [data-testid=stButtonGroup], "
    + "[data-testid=stDataFrame], .modebar";

  function missedIn(root, missed) {
    for (const element of root.querySelectorAll(usable)) {
      const box = element.getBoundingClientRect();
      const hidden = !box.width || !box.height || getComputedStyle(element).visibility === "hidden" || element.disabled
        || element.closest("[aria-hidden=true], [inert]");
      const group = element.closest(groups);
      const reached = [...stops.keys()].some((stop) => stop === element || element.contains(stop)
        || stop.contains(element) || group?.contains(stop)
        || (element.tagName === "INPUT" && element.parentElement.contains(stop)));
      const modebar = group?.matches(".modebar"); // Plotly's own: what it does is offered beside the chart as well
      if (!hidden && !reached && !modebar && !element.shadowRoot) missed.push(element.outerHTML.slice(0, 160));
    }
    for (const element of root.querySelectorAll("*")) if (element.shadowRoot) missedIn(element.shadowRoot, missed);
    return missed;
  }

  window.lrcStop = () => {
    const element = active();
    if (!element || stops.has(element)) return null;
    stops.set(element, true);
    const { x, y, width, height } = element.getBoundingClientRect();
    const words = element.getAttribute("aria-label") || element.textContent || "";
    return { words: words.trim().slice(0, 50), tag: element.tagName, box: { x, y, width, height } };
  };
  window.lrcMissed = () => missedIn(document.querySelector('[data-testid="stApp"]'), []);
  window.lrcBlur = () => { left = active(); left?.blur(); };
  window.lrcFocus = () => left?.focus({ focusVisible: true, preventScroll: true });
})();
