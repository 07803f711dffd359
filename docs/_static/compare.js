// Before/after sliders: each <div class="compare"> holds a "before" image and an "after" image.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".compare")) {
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: 100, value: 50 });
    slider.setAttribute("aria-label", box.querySelector("img:not(.before)").alt);
    slider.addEventListener("input", () => box.style.setProperty("--at", `${slider.value}%`));
    box.append(slider);
  }
});
