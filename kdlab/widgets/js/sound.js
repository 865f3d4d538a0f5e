// A spectrogram over time, under it what was said and what each net hears, and a cursor at frame `index`.
const PAPER = [250, 249, 245], LANE = 34, TIME = 26;

function spectrogram(bytes, bands, frames) { // low bands at the bottom, the louder the darker
  const canvas = Object.assign(document.createElement("canvas"), { width: frames, height: bands });
  const c = canvas.getContext("2d"), data = c.createImageData(frames, bands);
  for (let t = 0; t < frames; t += 1) for (let b = 0; b < bands; b += 1) {
    const ink = bytes[t * bands + b] / 255, at = 4 * ((bands - 1 - b) * frames + t);
    PAPER.forEach((paper, rgb) => { data.data[at + rgb] = paper - (paper - 20) * ink; });
    data.data[at + 3] = 255;
  }
  c.putImageData(data, 0, 0);
  return canvas;
}

function render({ model, el }) {
  const at = frame(el), canvas = make(at.picture, "canvas", { class: "kd-canvas" }), c = canvas.getContext("2d");
  const [frames, bands] = model.get("shape"), view = model.get("energies");
  const image = spectrogram(new Uint8Array(view.buffer, view.byteOffset, view.byteLength), bands, frames);
  let left = 0, right = 1;
  const seek = (event) => {
    const t = Math.round(((event.offsetX - left) / (right - left)) * frames - 0.5);
    model.set("index", Math.min(Math.max(t, 0), frames - 1));
    model.save_changes();
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); seek(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });

  return keepDrawn(model, el, (width) => {
    const k = knobs(model), inputs = inputsOf(model), { lanes, numbers } = recipes.heard(inputs, k);
    const colors = colorsOf(lanes.map((lane) => lane.name));
    const tall = model.get("height"), height = tall + (lanes.length + 1) * LANE + TIME + 8;
    const dots = window.devicePixelRatio || 1, style = getComputedStyle(el), ink = style.color;
    const [W, H] = [width, height].map((v) => Math.round(v * dots));
    if (canvas.width !== W || canvas.height !== H) { canvas.width = W; canvas.height = H; }
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px`, cursor: "col-resize", touchAction: "none" });
    c.setTransform(dots, 0, 0, dots, 0, 0);
    c.clearRect(0, 0, width, height);
    c.font = `15px ${style.fontFamily}`;
    left = Math.min(96, width * 0.25); right = width - 10;
    const x = (t) => left + ((right - left) * t) / frames;
    const text = (words, ax, ay, align, room) => { c.fillStyle = ink; c.textAlign = align; c.fillText(words, ax, ay, room); };

    c.imageSmoothingEnabled = false;
    c.drawImage(image, left, 0, right - left, tall);
    text("4 kHz", left - 8, 14, "right");
    text("0", left - 8, tall - 2, "right");
    [{ name: "said", word: inputs.truth, p: inputs.truth.map(() => 1) }, ...lanes].forEach((lane, i) => {
      const top = tall + 6 + i * LANE;
      text(lane.name, left - 8, top + 20, "right", left - 12);
      for (let t = 0, end; t < frames; t = end) { // a run of frames that hear the same word
        for (end = t + 1; end < frames && lane.word[end] === lane.word[t];) end += 1;
        for (let f = t; f < end; f += 1) {
          const hit = i && lane.word[f] === inputs.truth[f]; // in its net's color, as in the bars
          c.globalAlpha = 0.12 + 0.75 * lane.p[f];
          c.fillStyle = hit ? style.getPropertyValue(`--kd-${colors[i - 1]}`) : "rgb(128 128 128 / 45%)";
          c.fillRect(x(f), top, x(f + 1) - x(f) + 0.4, LANE - 6);
        }
        c.globalAlpha = 1;
        const name = String(k.labels[lane.word[t]] ?? lane.word[t]), room = x(end) - x(t);
        if (c.measureText(name).width < room - 4) text(name, (x(t) + x(end)) / 2, top + 20, "center");
      }
    });
    for (const seconds of ticks(0, frames / 100, false, Math.max(2, (right - left) / 120))) {
      text(`${short(seconds)} s`, x(100 * seconds), height - 6, seconds ? "center" : "left");
    }
    c.strokeStyle = ink;
    c.lineWidth = 2;
    c.beginPath(); c.moveTo(x(k.index + 0.5), 0); c.lineTo(x(k.index + 0.5), height - TIME); c.stroke();

    words(el, at, model, { T: k.T, index: k.index, numbers, lanes: lanes.map((l) => ({ name: l.name, word: l.word[k.index],
      p: l.p[k.index], right: l.word.filter((w, t) => w === inputs.truth[t]).length })),
      said: lanes.map((l) => `${l.name} hears ${k.labels[l.word[k.index]]}`).join(", ") });
  });
}
export default { render };
