// Paper for one digit: an image put there by Python, and round strokes by mouse, pen or finger on top of it.
const THICK = 0.09; // of the paper's side: a digit that fills two thirds of it comes out as thick as MNIST's
const EVERY = 40; // milliseconds between two sendings while one draws

function trace(c, side, points) { // through the middles of the pieces, round the corners
  const [x, y] = points[0].map((v) => v * side);
  c.beginPath();
  c.moveTo(x, y);
  for (let i = 1; i < points.length - 1; i += 1) {
    const [a, b] = [points[i], points[i + 1]];
    c.quadraticCurveTo(a[0] * side, a[1] * side, ((a[0] + b[0]) / 2) * side, ((a[1] + b[1]) / 2) * side);
  }
  const [endX, endY] = points.at(-1).map((v) => v * side);
  c.lineTo(endX + (points.length === 1 ? 0.01 : 0), endY); // a line of no length would leave no dot
  c.stroke();
}
function paint(canvas, under, strokes) { // ink is what is opaque, paper is the canvas's background
  const c = canvas.getContext("2d", { willReadFrequently: true }), side = canvas.width;
  c.clearRect(0, 0, side, side);
  c.imageSmoothingEnabled = false;
  if (under) c.drawImage(under, 0, 0, side, side);
  Object.assign(c, { lineCap: "round", lineJoin: "round", lineWidth: THICK * side, strokeStyle: "#141414" });
  strokes.forEach((points) => trace(c, side, points));
}
function bytesOf(view) { return new Uint8Array(view.buffer, view.byteOffset, view.byteLength); }

function sheet(bytes, side) { // a canvas of these bytes, none for empty paper
  if (!bytes.some((v) => v)) return null;
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const c = canvas.getContext("2d"), data = c.createImageData(side, side);
  bytes.forEach((ink, p) => { data.data.set([20, 20, 20, ink], 4 * p); });
  c.putImageData(data, 0, 0);
  return canvas;
}

function render({ model, el }) {
  const at = frame(el), canvas = make(at.picture, "canvas", { class: "kd-pad" });
  const side = model.get("side"), small = Object.assign(document.createElement("canvas"), { width: side, height: side });
  let under = null, strokes = [], pen = null, later = 0, sent = new Uint8Array(0);

  function send() {
    clearTimeout(later);
    later = 0;
    paint(small, under, strokes);
    const rgba = small.getContext("2d").getImageData(0, 0, side, side).data;
    sent = Uint8Array.from({ length: side * side }, (_, p) => rgba[4 * p + 3]);
    model.set("ink", new DataView(sent.buffer));
    model.save_changes();
  }
  function take() { // an image from Python, or from another view of this pad; not what was sent from here
    const bytes = bytesOf(model.get("ink"));
    if (pen !== null || (bytes.length === sent.length && bytes.every((v, p) => v === sent[p]))) return;
    [under, strokes, sent] = [sheet(bytes, side), [], bytes.slice()];
  }
  const show = () => {
    const dots = Math.round((canvas.clientWidth || 280) * (window.devicePixelRatio || 1));
    if (canvas.width !== dots) { canvas.width = dots; canvas.height = dots; }
    paint(canvas, under, strokes);
    const ink = bytesOf(model.get("ink")).reduce((a, b) => a + b, 0);
    words(el, at, model, { ink, strokes: strokes.length, said: ink ? "a drawing" : "empty paper" });
  };
  const undo = () => { strokes.pop(); send(); };
  const clear = () => { [under, strokes] = [null, []]; send(); };

  function add(event) {
    const box = canvas.getBoundingClientRect(), moves = event.getCoalescedEvents?.() ?? [];
    for (const { clientX, clientY } of moves.length ? moves : [event]) {
      strokes.at(-1).push([(clientX - box.left) / box.width, (clientY - box.top) / box.height]);
    }
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (pen !== null || event.button) return; // a second finger does not draw
    pen = event.pointerId;
    canvas.setPointerCapture(pen); // the stroke goes on where the pen leaves the paper
    strokes.push([]);
    add(event);
    later ||= setTimeout(send, EVERY);
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pen) return;
    add(event);
    later ||= setTimeout(send, EVERY);
    show();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => { if (event.pointerId === pen) { pen = null; send(); } });
  }
  const buttons = make(el, "div", { class: "kd-buttons" });
  for (const [text, key, act] of [["Undo", "Backspace", undo], ["Clear", "Delete", clear]]) {
    make(buttons, "button", { type: "button", title: `${text} (${key})`, text }).addEventListener("click", act);
  }
  set(at.picture, { tabindex: 0 });
  set(el, { "data-lm-suppress-shortcuts": true }); // these keys are not the notebook's
  el.addEventListener("keydown", ({ key }) => { ({ Backspace: undo, Delete: clear })[key]?.(); });

  take();
  model.on("change:ink", take);
  const stop = keepDrawn(model, el, show);
  return () => { clearTimeout(later); model.off("change:ink", take); stop(); };
}
export default { render };
