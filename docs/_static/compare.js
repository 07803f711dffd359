// Before/after sliders: <div class="compare"> with a "before" and an "after" image becomes one.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".compare")) {
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: 100, value: 50, ariaLabel: "Move the divider" });
    slider.addEventListener("input", () => box.style.setProperty("--at", `${slider.value}%`));
    box.append(slider);
  }
});
