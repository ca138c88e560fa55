// The bar: how boxes are made and shown, what they come to, and which pictures are looked at.
const field = (id) => document.getElementById(id);
const NORMALISERS = [...new Set(["minmax", "max", own.normalise])];
const COMPONENTS = ["largest", "all", "peaks"];
const SETTING = ["threshold", "threshold-number", "normalise", "components"]; // fields that boxes, and so orders, follow

function prepareBar() {
  field("normalise").append(...NORMALISERS.map((name) => new Option(name, name)));
  field("components").append(...COMPONENTS.map((name) => new Option(name, name)));
  const sorts = Object.entries(SORTS).filter(([key]) => key !== "iou" || cards.some((card) => overlapNow(card) !== null));
  field("sort").append(...sorts.map(([key, [title]]) => new Option(title, key)));
  const names = new Set(cards.flatMap((card) => card.maps.map((map) => map.className)));
  field("class-names").append(...[...names].sort().map((name) => element("option", { value: name })));
  field("bar").addEventListener("submit", (event) => event.preventDefault());
  field("bar").addEventListener("input", (event) => takeIn(event.target));
  field("bar").addEventListener("change", (event) => {
    leave(event.target);
    if (SETTING.includes(event.target.id)) arrange();
  });
  field("reset").addEventListener("click", () => (reset(), showSetting(), arrange()));
  field("more").addEventListener("click", () => {
    const isOpen = field("bar").classList.toggle("open");
    field("more").setAttribute("aria-expanded", String(isOpen));
  });
  for (const button of document.querySelectorAll("[data-gallery]")) {
    button.addEventListener("click", () => chooseGallery(Number(button.dataset.gallery)));
  }
  paintColours(field("colours"));
}

function takeIn(input) {
  const { id, value, checked } = input;
  if (id === "threshold" || id === "threshold-number") moveThreshold(value, input);
  else if (id === "normalise" || id === "components") changeSetting({ [id]: value });
  else if (id === "heat") view.heat = checked;
  else if (id === "drawn") view.boxes = checked;
  else if (id === "beside") view.beside = checked;
  else view[id] = value;
  if (["filter", "sort", "beside"].includes(id)) arrange();
  schedule();
}

// What was typed and is no threshold goes when its field is left.
function leave(input) {
  if (input.id === "threshold-number") input.value = exact(now.threshold);
}

// What is half typed is no threshold yet; `rebox` takes neither 0 nor 1.
function moveThreshold(value, input) {
  const threshold = Number(value);
  if (value.trim() === "" || !(threshold > 0 && threshold < 1)) return;
  changeSetting({ threshold }, input);
}

function changeSetting(changes, input) {
  change(changes);
  showSetting(input);
  schedule();
}

// Shows the setting everywhere but in the field that it comes from.
function showSetting(from) {
  for (const id of ["threshold", "threshold-number", "viewer-threshold"]) {
    if (field(id) !== from) field(id).value = exact(now.threshold);
  }
  field("viewer-number").textContent = exact(now.threshold);
  field("normalise").value = now.normalise;
  field("components").value = now.components;
  field("reset").disabled = now.isOwn;
  field("origin").textContent = originOf();
  if (field("rebox")) field("rebox").textContent = reboxLine();
}

// The last mark of each name is the one that is meant: a path may have some, too.
function reboxLine() {
  if (now.isOwn && own.isCalibrated) return page.reboxOwn; // what is not given goes on, the calibration too
  const minArea = now.components === "largest" ? "" : ` --min-area ${exact(own.leastAreas[now.components])}`;
  const { normalise, components } = now;
  const values = { threshold: exact(now.threshold), normalise, components, min_area: minArea };
  return Object.entries(values).reduce((line, [name, value]) => {
    const at = line.lastIndexOf(`{${name}}`);
    return at < 0 ? line : line.slice(0, at) + value + line.slice(at + name.length + 2);
  }, page.rebox);
}

function originOf() {
  const words = ({ threshold, normalise, components }) => `${exact(threshold)}, ${normalise}, ${components}`;
  const runs = own.isPerClass ? `a threshold for each class, ${own.normalise}, ${own.components}` : words(own);
  if (!now.isOwn) return `Boxes made here: ${words(now)}${own.isPerClass ? ", for all classes" : ""}. The run's own: ${runs}.`;
  return `The run's own boxes: ${runs}.${own.isPerClass ? " Moving the slider sets one threshold for all." : ""}`;
}

function chooseGallery(number) {
  view.gallery = galleries[number];
  for (const button of document.querySelectorAll("[data-gallery]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.gallery) === number));
  }
  arrange();
}

// Which pictures these are, and how many the filter leaves.
function showSays() {
  const { cards: chosen, others, total, says } = view.gallery;
  const count = (number) => number.toLocaleString("en");
  const left = order.length < chosen.length ? `${count(order.length)} of ${count(chosen.length)} fit the filter` : "";
  const shown = element("b", {}, left ? `${left}.` : `${count(chosen.length)} of ${count(total)} shown.`);
  const other = others.length ? ` The other is ${page.against.root}, with its own boxes.` : "";
  field("says").replaceChildren(shown, ` ${says}${other}`);
}

// What the boxes of the shown maps come to.
function showCounts() {
  const shown = order.map((number) => cards[number]).filter((card) => card.maps.length);
  const counted = shown.filter((card) => isCounted(shownMap(card)));
  const numbers = counted.map((card) => boxesOf(shownMap(card)).length);
  const wholes = counted.map((card) => boxesOf(shownMap(card)).filter((box) => isWhole(box, card.size)).length);
  const known = counted.filter((card) => trueBoxes(card).length);
  const right = known.filter((card) => overlapOf(card) >= 0.5).length;
  const parts = [
    ["count-boxes", sum(numbers), "boxes"],
    ["count-empty", numbers.filter((number) => !number).length, "without"],
    ["count-several", numbers.filter((number) => number > 1).length, "with several"],
    ["count-whole", sum(wholes), "of the whole picture"],
  ];
  if (known.length) parts.push(["count-right", `${right} of ${known.length}`, "with IoU ≥ 0.5"]);
  const items = parts.map(([id, value, words]) => element("span", {}, element("b", { id }, value.toLocaleString("en")), ` ${words}`));
  const progress = counted.length < shown.length ? [element("span", {}, `after ${counted.length} of ${shown.length} pictures`)] : [];
  field("counts").replaceChildren(...items, ...progress);
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
