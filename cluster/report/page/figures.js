// One picture with heat and boxes over it. A stage is an element with the picture, a canvas and an SVG, one on another.
const SVG = "http://www.w3.org/2000/svg";
const scratch = document.createElement("canvas");

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Puts a canvas over a stage's picture, below the SVG, which is made where the page has none.
function prepareStage(stage, card, side) {
  const [width, height] = card.size;
  const scale = side / Math.max(width, height, 1);
  const canvas = element("canvas", {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
    "aria-hidden": "true",
  });
  const svg = stage.querySelector("svg") ?? document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${Math.max(width, 1)} ${Math.max(height, 1)}`);
  svg.setAttribute("aria-hidden", "true");
  stage.append(canvas, svg);
}

function paintHeat(stage, card, map, setting) {
  const canvas = stage.querySelector("canvas");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!setting || !map) return;
  const [height, width] = setting.input;
  const pixels = CamrayBoxes.heat(CamrayBoxes.scaled(map, setting), page.colours);
  Object.assign(scratch, { width, height });
  scratch.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  const [x0, y0, x1, y1] = map.rectangle;
  const [across, down] = [canvas.width / card.size[0], canvas.height / card.size[1]];
  context.drawImage(scratch, x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down);
}

function paintBoxes(stage, card, boxes) {
  const svg = stage.querySelector("svg");
  svg.replaceChildren();
  if (!boxes) return;
  for (const box of trueBoxes(card)) svg.append(rectangle(box, "halo"), rectangle(box, "true"));
  const ranked = boxes.map(({ box }, rank) => [box, rank ? "box second" : "box"]);
  for (const [box, name] of ranked.reverse()) svg.append(rectangle(box, "halo"), rectangle(box, name));
}

function rectangle([x0, y0, x1, y1], name) {
  const made = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: name })) {
    made.setAttribute(key, value);
  }
  return made;
}

// As the bar has it: with or without heat, with or without boxes.
function paint(stage, card, map) {
  paintHeat(stage, card, map, view.heat ? settingNow() : null);
  paintBoxes(stage, card, view.boxes ? (map ? boxesOf(map) : []) : null);
}

// A stage of the other run, with its own boxes, over the same picture.
function otherStage(picture, other, map, side) {
  const stage = element("span", { class: "stage" }, picture);
  prepareStage(stage, other, side);
  paintHeat(stage, other, map, view.heat ? page.against.setting : null);
  paintBoxes(stage, other, view.boxes ? (map?.boxes ?? []) : null);
  return stage;
}

// Buttons that choose among an image's maps; nothing where there is one.
function mapButtons(card, choose) {
  if (card.maps.length < 2) return [];
  return card.maps.map((map, at) => {
    const button = element("button", { type: "button", class: "map", "aria-pressed": String(at === card.at) });
    button.append(map.className, " ", element("small", {}, score(map.score)));
    button.addEventListener("click", () => choose(at));
    return button;
  });
}

function paintColours(canvas) {
  const context = canvas.getContext("2d");
  const ramp = Float64Array.from({ length: canvas.width }, (_, x) => x / (canvas.width - 1));
  const pixels = CamrayBoxes.heat(ramp, page.colours);
  for (let y = 0; y < canvas.height; y++) context.putImageData(new ImageData(pixels, canvas.width, 1), 0, y);
}
