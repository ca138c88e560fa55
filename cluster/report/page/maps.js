"use strict";

// Raw maps enlarged to the network's input and normalised: what cam_ops/boxes/normalise.py does, with its very numbers.
// Numbers are float64; `f32` rounds where NumPy or OpenCV hold float32, and the order of additions is theirs.
//
// A map is {raw: Float32Array, grid: [h, w], rectangle: [x0, y0, x1, y1], size: [width, height]}: its rows, the part of
// the picture that they cover, and the picture's size. A setting is {input: [height, width], recipe: "default" | "blog",
// normalise: "minmax" | "max" | "ivr:P"}, to which boxes.js adds.
const CamrayMaps = (() => {
  const f32 = Math.fround;
  const MOST_KEPT = 2 ** 26; // numbers, 512 MiB: of 120 maps of 512 x 512 pixels

  const cache = new Map(); // the latest used last
  let numbersKept = 0;

  // Float64Arrays {enlarged, scaled}, row by row.
  function enlarge({ raw, grid }, { input, recipe, normalise }) {
    if (isFlat(raw)) raw = new Float32Array(raw.length);
    if (recipe === "blog") {
      const scaled = bilinear(normalised(raw, normalise, f32), grid, input);
      return { enlarged: bilinear(raw, grid, input), scaled };
    }
    const enlarged = bicubic(raw, grid, input);
    return { enlarged, scaled: normalised(enlarged, normalise, (value) => value) };
  }

  // The same with 0 in a letterbox's padding: {scaled, peak, mass}, where energies are shares of what of `mass` is
  // positive. That of a map's latest recipe and normaliser is kept, until all that is kept is too much.
  function kept(map, setting) {
    const key = JSON.stringify([setting.input, setting.recipe, setting.normalise]);
    let maps = cache.get(map);
    if (maps) {
      cache.delete(map);
      numbersKept -= maps.numbers;
    }
    if (maps?.key !== key) maps = { key, ...inside(map, setting) };
    cache.set(map, maps);
    numbersKept += maps.numbers;
    for (const [oldest, { numbers }] of cache) {
      if (numbersKept <= MOST_KEPT || oldest === map) break;
      cache.delete(oldest);
      numbersKept -= numbers;
    }
    return maps;
  }

  function inside(map, setting) {
    const [height, width] = setting.input;
    const { enlarged, scaled } = enlarge(map, setting);
    const isPositivePart = setting.recipe === "default" && setting.normalise === "max";
    const arrays = isPositivePart ? [scaled] : [scaled, enlarged];
    const outside = paddingOf(map, height, width);
    if (outside) for (const values of arrays) clear(values, outside, width);
    return { scaled, peak: largest(scaled), mass: arrays.at(-1), numbers: arrays.length * scaled.length };
  }

  function isFlat(raw) {
    return !raw.every(Number.isFinite) || raw.every((value) => value === raw[0]);
  }

  function largest(values) {
    let most = values[0];
    for (let i = 1; i < values.length; i++) if (values[i] > most) most = values[i];
    return most;
  }

  // As OpenCV's INTER_CUBIC of float64: coefficients in float32, edges repeated.
  function bicubic(raw, [rows, columns], [height, width]) {
    const across = cubicTaps(columns, width);
    const down = cubicTaps(rows, height);
    const wide = new Float64Array(rows * width);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < width; x++) {
        let sum = raw[y * columns + across.places[4 * x]] * across.weights[4 * x];
        for (let k = 4 * x + 1; k < 4 * x + 4; k++) sum += raw[y * columns + across.places[k]] * across.weights[k];
        wide[y * width + x] = sum;
      }
    }
    const enlarged = new Float64Array(height * width);
    for (let y = 0; y < height; y++) {
      const [a, b, c, d] = down.places.subarray(4 * y, 4 * y + 4).map((row) => row * width);
      const [u, v, w, z] = down.weights.subarray(4 * y, 4 * y + 4);
      for (let x = 0; x < width; x++) {
        enlarged[y * width + x] = wide[a + x] * u + wide[b + x] * v + wide[c + x] * w + wide[d + x] * z;
      }
    }
    return enlarged;
  }

  function cubicTaps(from, to) {
    const places = new Int32Array(4 * to);
    const weights = new Float64Array(4 * to);
    const step = 1 / (to / from);
    const near = (x) => f32(f32(f32(f32(f32(1.25 * x) - 2.25) * x) * x) + 1);
    for (let i = 0; i < to; i++) {
      const place = f32((i + 0.5) * step - 0.5);
      const first = Math.floor(place);
      const x = f32(place - first);
      const beyond = f32(x + 1);
      const far = f32(f32(f32(f32(f32(f32(-0.75 * beyond) + 3.75) * beyond) - 6) * beyond) + 3);
      const middle = [near(x), near(f32(1 - x))];
      weights.set([far, ...middle, f32(f32(f32(1 - far) - middle[0]) - middle[1])], 4 * i);
      for (let k = 0; k < 4; k++) places[4 * i + k] = clip(first - 1 + k, 0, from - 1);
    }
    return { places, weights };
  }

  // As OpenCV's INTER_LINEAR of float32: Intel's IPP with fused multiply-add, but OpenCV's own where a side is 1.
  function bilinear(raw, [rows, columns], [height, width]) {
    const fused = rows > 1 && columns > 1;
    const mix = fused
      ? (p, q, weight) => f32(p + f32(q - p) * weight)
      : (p, q, weight) => f32(f32(p * f32(1 - weight)) + f32(q * weight));
    const across = linearTaps(columns, width, fused);
    const down = linearTaps(rows, height, fused);
    const wide = new Float64Array(rows * width);
    for (let x = 0; x < width; x++) {
      const { before, after, first, weight } = across[x];
      const own = fused || (first >= 0 && first < columns - 1) ? weight : 0;
      for (let y = 0; y < rows; y++) {
        wide[y * width + x] = mix(raw[y * columns + before], raw[y * columns + after], own);
      }
    }
    const enlarged = new Float64Array(height * width);
    for (let y = 0; y < height; y++) {
      const { before, after, weight } = down[y];
      for (let x = 0; x < width; x++) {
        enlarged[y * width + x] = mix(wide[before * width + x], wide[after * width + x], weight);
      }
    }
    return enlarged;
  }

  function linearTaps(from, to, fused) {
    const step = fused ? from / to : 1 / (to / from);
    return Array.from({ length: to }, (_, i) => {
      const exact = (i + 0.5) * step - 0.5;
      const place = fused ? exact : f32(exact);
      const first = Math.floor(place);
      const [before, after] = [clip(first, 0, from - 1), clip(first + 1, 0, from - 1)];
      return { before, after, first, weight: f32(place - first) };
    });
  }

  function normalised(values, how, round) {
    let base = 0;
    if (how === "minmax") {
      base = values.reduce((least, value) => (value < least ? value : least));
    } else if (how !== "max") {
      base = percentile(values, Number(/^ivr:(.+)$/.exec(how)[1]), round);
    }
    const scaled = values.map((value) => Math.max(round(value - base), 0));
    const peak = largest(scaled);
    return peak > 0 ? scaled.map((value) => value / peak) : scaled.fill(0);
  }

  // numpy.percentile, "linear".
  function percentile(values, percent, round) {
    const sorted = values.slice().sort();
    const place = (sorted.length - 1) * (percent / 100);
    const before = Math.min(Math.floor(place), sorted.length - 1);
    const [p, q] = [sorted[before], sorted[Math.min(before + 1, sorted.length - 1)]];
    const share = place - before;
    const difference = round(q - p);
    return share >= 0.5
      ? round(q - round(difference * round(1 - share)))
      : round(p + round(difference * round(share)));
  }


  // The rows and columns whose centres lie outside the picture, or null where the map is all inside.
  function paddingOf({ rectangle: [x0, y0, x1, y1], size: [pictureWidth, pictureHeight] }, height, width) {
    if (x0 >= 0 && y0 >= 0 && x1 <= pictureWidth && y1 <= pictureHeight) return null;
    const outside = (count, start, end, most) =>
      Uint8Array.from({ length: count }, (_, i) => {
        const centre = start + ((i + 0.5) / count) * (end - start);
        return centre <= 0 || centre >= most;
      });
    return { rows: outside(height, y0, y1, pictureHeight), columns: outside(width, x0, x1, pictureWidth) };
  }

  function clear(values, outside, width) {
    for (let i = 0; i < values.length; i++) {
      if (outside.rows[Math.floor(i / width)] || outside.columns[i % width]) values[i] = 0;
    }
  }

  function clip(value, least, most) {
    return Math.min(Math.max(value, least), most);
  }

  return { enlarge, kept };
})();
