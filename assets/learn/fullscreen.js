// Fills the screen with the page, and gives it back.
export default function ({ parentElement }) {
  const button = parentElement.querySelector("button");
  const say = () => { button.textContent = document.fullscreenElement ? "Leave full screen" : "Full screen"; };
  button.onclick = () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.().catch(() => {});
  };
  document.addEventListener("fullscreenchange", say);
  return () => document.removeEventListener("fullscreenchange", say);
}
