// What the page shows: the run's cards and galleries, and the setting at which boxes are made now.
const page = JSON.parse(document.getElementById("state").textContent);
const cards = page.cards;
const galleries = page.galleries;
const own = page.setting;
const now = { threshold: own.threshold, normalise: own.normalise, components: own.components, isOwn: true };
let version = 0; // of `now`: what was made of an older one is stale

for (const card of [...cards, ...(page.against?.cards ?? [])]) {
  card.at = card.chosen = 0; // the map that is shown, and the one that is where no filter asks for another
  for (const map of card.maps) {
    map.raw = floats(map.raw);
    map.size = card.size;
  }
}

function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

// A calibrated run has probabilities, and may have a threshold for each class: once moved, the slider sets one for all.
function change(changes) {
  Object.assign(now, changes);
  const isSame = ["threshold", "normalise", "components"].every((name) => now[name] === own[name]);
  now.isOwn = isSame && !own.isCalibrated;
  version++;
}

function reset() {
  const { threshold, normalise, components } = own;
  Object.assign(now, { threshold, normalise, components, isOwn: true });
  version++;
}

function settingNow() {
  const { threshold, normalise, components } = now;
  const least_area = own.leastAreas[components] ?? 0;
  return { input: own.input, recipe: own.recipe, normalise, threshold, components, least_area };
}

// The boxes of a map, best first: at the run's own setting those of its table.
function boxesOf(map) {
  if (now.isOwn) return map.boxes;
  if (map.version !== version) {
    map.found = CamrayBoxes.boxes(map, settingNow());
    map.version = version;
  }
  return map.found;
}

function isCounted(map) {
  return now.isOwn || map.version === version;
}

function shownMap(card) {
  return card.maps[card.at];
}

function trueBoxes(card) {
  return card.truth?.boxes ?? [];
}

// Of the best box, with the true box that it fits best; null where none is known.
function overlapOf(card) {
  const truths = trueBoxes(card);
  const map = shownMap(card);
  if (!truths.length || !map) return null;
  const [best] = boxesOf(map);
  return best ? Math.max(...truths.map((truth) => overlap(best.box, truth))) : 0;
}

function overlap(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  return (width * height) / (areaOf(one) + areaOf(other) - width * height);
}

function areaOf([x0, y0, x1, y1]) {
  return (x1 - x0) * (y1 - y0);
}

function isWhole({ box }, [width, height]) {
  return areaOf(box) >= page.wholeImage * width * height;
}

function plural(number, noun, many = `${noun}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : many}`;
}

function score(value) {
  return value === null ? "-" : value.toFixed(2);
}

function exact(value) {
  return String(Number(value.toPrecision(6)));
}
