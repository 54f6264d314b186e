// What the reader did is kept in a cookie of this browser, so that the next visit finds it and nobody else does.
// A step that is opened from the end of another one starts at its top, not where the other one was left.
const DAYS = 365;
let shown = null;

export default function (component) {
  const { cookie, step } = component.data;
  document.cookie = `${cookie}; path=/; max-age=${DAYS * 86400}; samesite=lax`;
  if (shown !== null && shown !== step) document.querySelector('[data-testid="stMain"]')?.scrollTo(0, 0);
  shown = step;
}
