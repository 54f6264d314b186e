// What the reader did is kept in a cookie of this browser, so that the next visit finds it and nobody else does.
// A step that is opened from the end of another one starts at its top, not where the other one was left; answers that are
// checked are followed by what was right, which lies below the fold.
const DAYS = 365;
let shown = null;
let told = null;

export default function (component) {
  const { cookie, step, verdict } = component.data;
  document.cookie = `${cookie}; path=/; max-age=${DAYS * 86400}; samesite=lax`;
  if (shown !== null && shown !== step) document.querySelector('[data-testid="stMain"]')?.scrollTo(0, 0);
  shown = step;
  if (told === "" && verdict) reveal(verdict);
  told = verdict;
}

// The page may still be drawing what is to be shown.
function reveal(key, left = 40) {
  const place = document.querySelector(`.st-key-${key}`);
  if (place?.offsetHeight) {
    place.style.scrollMarginTop = "4.5rem"; // the page's own bar
    place.scrollIntoView({ block: "start" });
  } else if (left) setTimeout(reveal, 50, key, left - 1);
}
