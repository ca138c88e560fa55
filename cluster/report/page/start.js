// Everything begins here.
document.documentElement.classList.add("js");
prepareCopying();
prepareSorting();
if (cards.length && galleries.length) {
  figures.forEach((figure, number) => prepareFigure(figure, cards[number]));
  prepareBar();
  prepareViewer();
  showSetting();
  const chosen = galleries.findIndex(({ key }) => location.hash === `#gallery-${key}`);
  chooseGallery(Math.max(chosen, 0));
}
