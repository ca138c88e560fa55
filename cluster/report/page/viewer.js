// One picture large, in a dialog: arrows go on, Escape closes.
const VIEWER_SIDE = 1200;
const viewer = document.getElementById("viewer");
let opened = null; // the number of its card

function prepareViewer() {
  field("previous").addEventListener("click", () => step(-1));
  field("next").addEventListener("click", () => step(1));
  field("close").addEventListener("click", () => viewer.close());
  field("viewer-threshold").addEventListener("input", (event) => moveThreshold(event.target.value, event.target));
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("keydown", onKey);
  viewer.addEventListener("close", afterClose);
}

function onKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.type === "range") return;
  const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  step(by);
}

function step(by) {
  const place = order.indexOf(opened) + by;
  if (place >= 0 && place < order.length) show(order[place]);
}

function openViewer(number) {
  show(number);
  viewer.showModal();
  field("viewer-title").focus();
}

function afterClose() {
  const button = figures[opened].querySelector(".frame");
  opened = null;
  arrange(); // its slider may have moved
  button.focus();
  button.scrollIntoView({ block: "nearest" });
}

function show(number) {
  opened = number;
  const card = cards[number];
  const place = order.indexOf(number);
  field("viewer-title").textContent = card.id;
  field("viewer-place").textContent = `${place + 1} of ${order.length}`;
  field("previous").disabled = place <= 0;
  field("next").disabled = place >= order.length - 1;
  const picture = figures[number].querySelector(".picture");
  const stage = element("span", { class: "stage" }, picture.cloneNode(true));
  prepareStage(stage, card, VIEWER_SIDE);
  const other = otherOf(number);
  const beside = other ? [otherStage(picture.cloneNode(true), other, otherMap(other, card), VIEWER_SIDE)] : [];
  field("viewer-stages").replaceChildren(stage, ...beside);
  refreshViewer();
}

function refreshViewer() {
  if (opened === null) return;
  const card = cards[opened];
  const map = shownMap(card);
  paint(field("viewer-stages").firstChild, card, map);
  const buttons = mapButtons(card, (at) => chooseMap(card, at));
  const group = field("viewer-maps");
  const hadFocus = group.contains(document.activeElement);
  group.hidden = !buttons.length;
  group.replaceChildren(...buttons);
  if (hadFocus && buttons.length) buttons[card.at].focus();
  field("viewer-facts").replaceChildren(...factsOf(card, map).map(([name, value]) => fact(name, value)));
  field("viewer-boxes").replaceChildren(...boxRows(map ? boxesOf(map) : []));
}

function fact(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}

function factsOf(card, map) {
  const iou = overlapNow(card);
  const within = galleries.filter(({ key, cards: numbers }) => key !== "all" && numbers.includes(cards.indexOf(card)));
  return [
    ["map of", map ? `${map.className} ${score(map.score)}` : "no class"],
    ["label", card.labels.join(", ") || "none"],
    ["best classes", card.top.map(([name, value]) => `${name} ${score(value)}`).join(", ")],
    ["size", `${card.size[0]} × ${card.size[1]}`],
    ...(trueBoxes(card).length ? [["truth", plural(trueBoxes(card).length, "true box", "true boxes")]] : []),
    ...(iou === null ? [] : [["IoU", score(iou)]]),
    ...(card.truth?.failure && isAudited(card) ? [["failure", card.truth.failure.replaceAll("_", " ")]] : []),
    ["shown in", within.map(({ title }) => title).join(", ")],
  ].filter(([, value]) => value);
}

function boxRows(boxes) {
  if (!boxes.length) return [element("caption", {}, "No box.")];
  const hasProbability = boxes.some(({ probability }) => probability != null);
  const titles = ["x0", "y0", "x1", "y1", "peak", "energy", ...(hasProbability ? ["probability"] : [])];
  const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
  const rows = boxes.map(({ box, peak, energy, probability }) => {
    const shares = [peak, energy, ...(hasProbability ? [probability ?? null] : [])].map(score);
    const cells = [...box.map((corner) => corner.toFixed(1)), ...shares];
    return element("tr", {}, ...cells.map((cell) => element("td", { class: "number" }, cell)));
  });
  return [element("thead", {}, head), element("tbody", {}, ...rows)];
}
