// What the reader did is kept in a cookie of this browser, so that the next visit finds it and nobody else does.
const DAYS = 365;

export default function (component) {
  document.cookie = `${component.data.cookie}; path=/; max-age=${DAYS * 86400}; samesite=lax`;
}
