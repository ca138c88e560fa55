"use strict";

// Maps to boxes: what cam_ops/boxes does (extract.py, regions.py, peaks.py), with its very numbers. It needs maps.js,
// which says what a map is and what a setting; here a setting has {threshold, components: "largest" | "all" | "peaks",
// least_area}, too: what BoxConfig.least_area is, a share of the picture.
const CamrayBoxes = (() => {
  const f32 = Math.fround;
  const MIN_DYNAMICS = 0.3;
  const MIN_PEAK = 0.3;
  const MOST_ALPHA = 0.8;

  // The normalised map, 0..1, of setting.input, with 0 in a letterbox's padding; not to be written to.
  function scaled(map, setting) {
    return CamrayMaps.kept(map, setting).scaled;
  }

  // Boxes, best first: region (map pixels), box (pixels of the picture), peak, energy, area_fraction (float32), rank.
  function boxes(map, setting) {
    const maps = CamrayMaps.kept(map, setting);
    const [height, width] = setting.input;
    const { scaled, peak } = maps;
    if (!(peak > 0)) return [];
    maps.total ??= massWithin(maps.mass, width, 0, 0, width, height);
    const floor = setting.threshold * peak;
    const split = setting.components === "peaks";
    let regions = split
      ? pieces(scaled, (maps.basins ??= basinsOf(scaled, height, width)), width, floor, peak)
      : regionsAbove(scaled, height, width, floor);
    if (setting.components === "largest" && regions.length > 1) {
      regions = [regions.reduce((best, region) => (region.pixels > best.pixels ? region : best))];
    } else {
      const area = pictureArea(map, height * width);
      regions = regions.filter((region) => region.pixels / area >= setting.least_area);
    }
    return ranked(regions.map((region) => boxOf(region, map, setting, maps)));
  }

  // --- regions -----------------------------------------------------------------------------------------------------

  // The 8-connected regions, in the order of OpenCV's labels: that of the blocks of 2 x 2 pixels in which they begin.
  function regionsAbove(scaled, height, width, floor) {
    const runs = [];
    const parent = [];
    let before = 0; // the first run of the row before that may touch
    for (let y = 0; y < height; y++) {
      const start = runs.length;
      let above = before;
      for (let x = 0, at = y * width; x < width; x++, at++) {
        if (!(scaled[at] >= floor)) continue;
        const x0 = x;
        let peak = scaled[at];
        while (++x < width && scaled[++at] >= floor) if (scaled[at] > peak) peak = scaled[at];
        const number = runs.length;
        runs.push(region(x0, y, x, y + 1, x - x0, peak, (y >> 1) * width + (x0 >> 1)));
        parent.push(number);
        while (above < start && runs[above].x1 < x0) above++;
        for (let touching = above; touching < start && runs[touching].x0 <= x; touching++) {
          const [one, other] = [rootOf(parent, touching), rootOf(parent, number)];
          parent[Math.max(one, other)] = Math.min(one, other);
        }
      }
      before = start;
    }
    runs.forEach((run, number) => {
      const root = rootOf(parent, number);
      if (root !== number) join(runs[root], run);
    });
    return runs.filter((_, number) => parent[number] === number).sort((a, b) => a.order - b.order);
  }

  function region(x0, y0, x1, y1, pixels, peak, order) {
    return { x0, y0, x1, y1, pixels, peak, order };
  }

  function join(whole, part) {
    whole.x0 = Math.min(whole.x0, part.x0);
    whole.x1 = Math.max(whole.x1, part.x1);
    whole.y1 = part.y1;
    whole.pixels += part.pixels;
    whole.peak = Math.max(whole.peak, part.peak);
    whole.order = Math.min(whole.order, part.order);
  }

  function rootOf(parent, number) {
    while (parent[number] !== number) number = parent[number] = parent[parent[number]];
    return number;
  }

  // --- regions split at peaks --------------------------------------------------------------------------------------

  // What does not depend on the threshold: the basin of each pixel, and the saddles between basins, highest first.
  function basinsOf(scaled, height, width) {
    const next = new Int32Array(scaled.length);
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) next[at] = firstHighest(scaled, height, width, y, x);
    }
    const tops = next.filter((to, at) => to === at);
    const numbers = new Map(Array.from(tops, (at, number) => [at, number]));
    const basin = next.map((_, at) => numbers.get(rootOf(next, at)));
    const peaks = Array.from(tops, (at) => scaled[at]);
    return { basin, peaks, saddles: saddlesOf(scaled, basin, peaks, height, width) };
  }

  // Of equal neighbours the first one counts as higher.
  function firstHighest(scaled, height, width, y, x) {
    let best = -1;
    for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row++) {
      for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column++) {
        const at = row * width + column;
        if (best < 0 || scaled[at] > scaled[best]) best = at;
      }
    }
    return best;
  }

  function saddlesOf(scaled, basin, peaks, height, width) {
    const highest = new Map();
    const touch = (at, to) => {
      if (basin[at] === basin[to]) return;
      const pair = Math.min(basin[at], basin[to]) * peaks.length + Math.max(basin[at], basin[to]);
      const value = Math.min(scaled[at], scaled[to]);
      if (!(highest.get(pair) >= value)) highest.set(pair, value);
    };
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        if (x + 1 < width) touch(at, at + 1);
        if (y + 1 === height) continue;
        touch(at, at + width);
        if (x + 1 < width) touch(at, at + width + 1);
        if (x > 0) touch(at, at + width - 1);
      }
    }
    const saddles = Array.from(highest, ([pair, value]) => {
      const [one, other] = [Math.floor(pair / peaks.length), pair % peaks.length];
      return { one, other, value, higher: Math.max(peaks[one], peaks[other]) };
    });
    return saddles.sort((a, b) => b.value - a.value || b.higher - a.higher || a.one - b.one || a.other - b.other);
  }

  function pieces(scaled, { basin, peaks, saddles }, width, floor, peak) {
    const owner = Int32Array.from(peaks, (_, number) => number);
    for (const { one, other, value } of saddles) {
      if (!(value >= floor)) break;
      let [low, high] = [rootOf(owner, one), rootOf(owner, other)];
      if (peaks[low] > peaks[high] || (peaks[low] === peaks[high] && low < high)) [low, high] = [high, low];
      if (peaks[low] - value < MIN_DYNAMICS * peak) owner[low] = high;
    }
    const found = peaks.map((value, number) => region(width, Infinity, 0, 0, 0, value, number));
    const owners = owner.map((_, number) => rootOf(owner, number));
    for (let at = 0, y = 0; at < scaled.length; y++) {
      for (let x = 0; x < width; x++, at++) {
        if (!(scaled[at] >= floor)) continue;
        const piece = found[owners[basin[at]]];
        piece.pixels++;
        if (x < piece.x0) piece.x0 = x;
        if (x >= piece.x1) piece.x1 = x + 1;
        if (y < piece.y0) piece.y0 = y;
        piece.y1 = y + 1;
      }
    }
    return found.filter((piece) => piece.pixels > 0 && piece.peak >= MIN_PEAK * peak);
  }

  // --- regions to boxes --------------------------------------------------------------------------------------------

  function pictureArea({ rectangle: [x0, y0, x1, y1], size: [width, height] }, pixels) {
    return (pixels * (width * height)) / ((x1 - x0) * (y1 - y0));
  }

  function boxOf({ x0, y0, x1, y1, peak }, map, { input: [height, width] }, { mass, total }) {
    const [left, top, right, bottom] = map.rectangle;
    const [pictureWidth, pictureHeight] = map.size;
    const across = (x) => f32(clip(x * ((right - left) / width) + left, 0, pictureWidth));
    const down = (y) => f32(clip(y * ((bottom - top) / height) + top, 0, pictureHeight));
    const box = [across(x0), down(y0), across(x1), down(y1)];
    const area = f32(f32(box[2] - box[0]) * f32(box[3] - box[1]));
    const energy = total > 0 ? f32(massWithin(mass, width, x0, y0, x1, y1) / total) : 0;
    const area_fraction = f32(area / (pictureWidth * pictureHeight));
    return { region: [x0, y0, x1, y1], box, exact: peak, peak: f32(peak), energy, area, area_fraction };
  }

  function massWithin(mass, width, x0, y0, x1, y1) {
    let sum = 0;
    for (let y = y0; y < y1; y++) {
      for (let at = y * width + x0; at < y * width + x1; at++) if (mass[at] > 0) sum += mass[at];
    }
    return sum;
  }

  // By peak, then area, then position, top before left.
  function ranked(found) {
    found.sort((a, b) => b.exact - a.exact || b.area - a.area || a.box[1] - b.box[1] || a.box[0] - b.box[0]);
    return found.map(({ exact, area, ...box }, rank) => ({ ...box, rank }));
  }

  function clip(value, least, most) {
    return Math.min(Math.max(value, least), most);
  }

  // --- heat --------------------------------------------------------------------------------------------------------

  // Pixels for a canvas, RGBA, of a map in 0..1; `colours` is 256 times RRGGBB. The lower the map, the clearer.
  function heat(scaled, colours) {
    const table = Uint8ClampedArray.from({ length: 1024 }, (_, i) =>
      i % 4 < 3 ? parseInt(colours.substr(6 * (i >> 2) + 2 * (i % 4), 2), 16) : MOST_ALPHA * (i >> 2),
    );
    const pixels = new Uint8ClampedArray(4 * scaled.length);
    for (let i = 0; i < scaled.length; i++) {
      const at = 4 * Math.floor(255 * scaled[i]);
      for (let k = 0; k < 4; k++) pixels[4 * i + k] = table[at + k];
    }
    return pixels;
  }

  return { boxes, enlarge: CamrayMaps.enlarge, heat, scaled };
})();
