"use strict";
const controls = document.querySelector(".controls");
if (controls) {
  const samples = [...document.querySelectorAll(".sample")];
  const search = controls.querySelector("input");
  const subject = controls.querySelector("select");
  const count = controls.querySelector("output");
  const buttons = [...controls.querySelectorAll("button")];
  const texts = new Map(); // lower-case text of each sample, made when it is first searched
  let state = "";

  const textOf = (sample) => {
    if (!texts.has(sample)) texts.set(sample, sample.textContent.toLowerCase());
    return texts.get(sample);
  };
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const sample of samples) {
      const fits =
        (!state || sample.dataset.state === state) &&
        (!subject || !subject.value || sample.dataset.group === subject.value) &&
        words.every((word) => textOf(sample).includes(word));
      sample.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${samples.length} shown`;
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      state = button.dataset.state;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      show();
    });
  }
  search.addEventListener("input", show);
  if (subject) subject.addEventListener("change", show);
  controls.hidden = false;
  show();
}
