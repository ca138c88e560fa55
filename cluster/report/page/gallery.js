// The grid: which pictures it shows, in which order; what is seen is drawn first, the rest is counted after it.
const FRAME_MS = 12; // of work at a time, so that the slider stays alive
const SIDE = 384; // pixels of a canvas
const grid = document.getElementById("grid");
const figures = cards.map((_, number) => document.getElementById(`card-${number}`));
const view = { gallery: galleries[0], filter: "", sort: "own", heat: true, boxes: true, beside: false };
const seen = new Set();
let order = []; // numbers of the cards that are shown
let frame = 0;

const SORTS = {
  own: ["the gallery's own", null],
  score: ["score, highest first", (card) => -(shownMap(card)?.score ?? -1)],
  boxes: ["boxes, most first", (card) => -(shownMap(card) ? boxesOf(shownMap(card)).length : 0)],
  iou: ["IoU, worst first", (card) => overlapNow(card) ?? 2],
};

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const number = figures.indexOf(target);
      if (isIntersecting) seen.add(number);
      else seen.delete(number);
    }
    schedule();
  },
  { rootMargin: "200px" },
);

function prepareFigure(figure, card) {
  const number = cards.indexOf(card);
  figure.querySelector(".frame").addEventListener("click", () => openViewer(number));
  figure.querySelector("figcaption").append(element("p", { class: "maps", role: "group", "aria-label": "Maps" }));
  showMaps(figure, card);
  prepareStage(figure.querySelector(".stage"), card, SIDE);
  observer.observe(figure);
}

function showMaps(figure, card) {
  const buttons = mapButtons(card, (at) => chooseMap(card, at));
  const group = figure.querySelector(".maps");
  const hadFocus = group.contains(document.activeElement);
  group.hidden = !buttons.length;
  group.replaceChildren(...buttons);
  if (hadFocus) buttons[card.at].focus();
}

function chooseMap(card, at) {
  card.chosen = at;
  showMap(card, at);
}

function showMap(card, at) {
  if (card.at === at) return;
  card.at = at;
  const figure = figures[cards.indexOf(card)];
  const map = shownMap(card);
  showMaps(figure, card);
  figure.querySelector(".mapped").textContent = map.className;
  figure.querySelector(".score").textContent = score(map.score);
  schedule();
}

// Which pictures are shown, in which order.
function arrange() {
  const wanted = view.filter.trim().toLowerCase();
  order = view.gallery.cards.filter((number) => hasClass(cards[number], wanted));
  const [, key] = SORTS[view.sort];
  if (key) order = order.map((number) => [key(cards[number]), number]).sort((a, b) => a[0] - b[0]).map(([, n]) => n);
  const shown = new Set(order);
  grid.classList.toggle("beside", view.beside || view.gallery.others.length > 0);
  figures.forEach((figure, number) => (figure.hidden = !shown.has(number)));
  grid.append(...order.map((number) => figures[number]));
  document.getElementById("none").hidden = order.length > 0;
  showSays();
  schedule();
}

// A card has a class that it is labelled with or has a map of; that map is shown as long as it is wanted.
function hasClass(card, wanted) {
  const isWhole = wanted && isClass(wanted);
  const fits = (name) => (isWhole ? name.toLowerCase() === wanted : name.toLowerCase().includes(wanted));
  const at = card.maps.findIndex((map) => fits(map.className));
  if (card.maps.length) showMap(card, at < 0 || fits(card.maps[card.chosen].className) ? card.chosen : at);
  return at >= 0 || card.labels.some(fits) || !wanted;
}

function isClass(wanted) {
  return cards.some((card) => card.maps.some((map) => map.className.toLowerCase() === wanted));
}

// Paper has no pictures that are not seen yet.
addEventListener("beforeprint", () => {
  order.forEach((number) => seen.add(number));
  order.forEach(refresh);
});

// The grid is busy until all is drawn that is seen, and all counted.
function schedule() {
  grid.ariaBusy = "true";
  frame ||= requestAnimationFrame(work);
}

function work() {
  frame = 0;
  const until = performance.now() + FRAME_MS;
  const inOrder = [...order.filter((number) => seen.has(number)), ...order.filter((number) => !seen.has(number))];
  for (const number of inOrder) {
    if (!refresh(number)) continue;
    if (performance.now() > until) {
      schedule();
      break;
    }
  }
  showCounts();
  refreshViewer();
  if (!frame) grid.ariaBusy = "false";
}

// Draws a picture that is seen, and counts one that is not; returns whether there was anything to do.
function refresh(number) {
  const [card, figure] = [cards[number], figures[number]];
  const map = shownMap(card);
  const isStale = map && !isCounted(map);
  if (isStale) boxesOf(map);
  if (!seen.has(number)) return isStale;
  const other = otherOf(number);
  const drawn = JSON.stringify([card.at, view.boxes, version]);
  const heated = JSON.stringify([card.at, view.heat, now.normalise]);
  const beside = JSON.stringify([view.beside, view.heat, view.boxes, other && [view.gallery.key, card.at]]);
  if (figure.drawn === drawn && figure.heated === heated && figure.beside === beside) return isStale;
  const stage = figure.querySelector(".stage");
  if (figure.heated !== heated) paintHeat(stage, card, map, view.heat ? settingNow() : null);
  if (figure.drawn !== drawn) paintBoxes(stage, card, view.boxes ? (map ? boxesOf(map) : []) : null);
  if (figure.beside !== beside) showBeside(figure, card, other);
  Object.assign(figure, { drawn, heated, beside });
  if (map) showFound(figure, card, boxesOf(map).length);
  return true;
}

// In a gallery that compares two runs, the card of the other one.
function otherOf(number) {
  const place = view.gallery.others.length ? view.gallery.cards.indexOf(number) : -1;
  return place < 0 ? null : page.against.cards[view.gallery.others[place]];
}

// Beside a picture stands what the other run has of it, or the original.
function showBeside(figure, card, other) {
  for (const old of figure.querySelectorAll(".stage ~ .stage, .other")) old.remove();
  if (!other && !view.beside) return;
  const picture = figure.querySelector(".picture").cloneNode(true);
  if (picture.alt) picture.alt = "";
  const stage = other ? otherStage(picture, other, otherMap(other, card), SIDE) : element("span", { class: "stage" }, picture);
  figure.querySelector(".frame").append(stage);
  if (other) figure.querySelector("figcaption").append(element("p", { class: "other" }, wordsOf(other, card)));
}

// That of the same class, or its first.
function otherMap(other, card) {
  return other.maps.find((map) => map.className === shownMap(card)?.className) ?? other.maps[0];
}

function wordsOf(other, card) {
  const map = otherMap(other, card);
  if (!map) return "other: no map";
  const [[best], [ours]] = [map.boxes, shownMap(card)?.boxes ?? []];
  const shared = best && ours ? `, IoU ${score(overlap(best.box, ours.box))} with this run's` : "";
  return `other: ${map.className} ${score(map.score)}, ${plural(map.boxes.length, "box", "boxes")}${shared}`;
}

function showFound(figure, card, number) {
  figure.querySelector(".num").textContent = plural(number, "box", "boxes");
  const [iou, failure] = [figure.querySelector(".iou"), figure.querySelector(".failure")];
  const value = overlapNow(card);
  if (iou) Object.assign(iou, { hidden: value === null, textContent: `IoU ${score(value)}` });
  if (failure) failure.hidden = !isAudited(card);
}

// Whether the boxes are those that the audit looked at.
function isAudited(card) {
  return now.isOwn && card.at === 0;
}

// As the audit has it, or of the boxes that are shown; null where it is not known.
function overlapNow(card) {
  return (isAudited(card) ? card.truth?.iou : null) ?? overlapOf(card);
}
