
// The lesson without a server: one step at a time, flipbooks, questions that answer.
for (const box of document.querySelectorAll(".book")) {
  flip({ data: JSON.parse(box.querySelector("script").textContent), parentElement: box, setStateValue: () => {} });
}

function turn() {
  const steps = [...document.querySelectorAll("main > section")];
  const shown = steps.find((step) => `#${step.id}` === location.hash) ?? steps[0];
  for (const step of steps) step.hidden = step !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${shown.id}`) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
  }
  scrollTo(0, 0);
}

addEventListener("hashchange", turn);
addEventListener("keydown", (event) => {
  if (!["PageDown", "PageUp"].includes(event.key) || event.target.closest("input")) return;
  const steps = [...document.querySelectorAll("main > section")];
  const next = steps.findIndex((step) => !step.hidden) + (event.key === "PageDown" ? 1 : -1);
  if (!steps[next]) return;
  event.preventDefault();
  location.hash = steps[next].id;
});
turn();

for (const form of document.querySelectorAll(".quiz")) {
  form.addEventListener("change", (event) => {
    const asked = event.target.closest("fieldset");
    asked.dataset.answer = event.target.value === "1" ? "right" : "wrong";
    asked.querySelector(".why").hidden = false;
  });
}
