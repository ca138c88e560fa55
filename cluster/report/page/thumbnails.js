// Paints small grids: a canvas's data-steps has a digit a cell, by rows; colours are --s0 to --s9 of plots.css.
(() => {
  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const colours = Array.from({ length: 10 }, (_, step) => style.getPropertyValue(`--s${step}`).trim());
    for (const canvas of document.querySelectorAll("canvas[data-steps]")) {
      const context = canvas.getContext("2d");
      [...canvas.dataset.steps].forEach((step, place) => {
        context.fillStyle = colours[step];
        context.fillRect(place % canvas.width, Math.floor(place / canvas.width), 1, 1);
      });
    }
  };
  paint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
})();
