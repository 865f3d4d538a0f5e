// The panel of a student that learns in the page: knobs, buttons and pictures around the worker that trains it.
const KNOBS = [ // name, what it says, from, to, on a log scale
  ["T", "temperature T", 0.1, 100, true], ["alpha", "alpha, soft targets' share", 0, 1, false],
  ["lr", "learning rate", 1e-5, 10, true], ["smoothing", "label smoothing", 0, 0.5, false]];
const SETUP = { units: 100, layers: 2, images: 500, seeds: 1, missing: "" };
const START = { T: 4, alpha: 0.9, lr: 0.01, smoothing: 0 };
const DRAW = 60; // milliseconds between two drawings while it trains
const SIDE = 140; // pixels of the pad

function local(traits) { // what a piece takes for its model, in a page without a kernel
  const heard = new Map(), fire = (event, ...what) => heard.get(event)?.forEach((f) => f(...what));
  const on = (event, f) => heard.set(event, (heard.get(event) ?? new Set()).add(f));
  const put = (values) => { Object.assign(traits, values); Object.keys(values).forEach((name) => fire(`change:${name}`)); fire("change"); };
  return { get: (name) => traits[name], set: (name, value) => put({ [name]: value }), put, on, off: (event, f) => heard.get(event)?.delete(f),
    save_changes: () => {}, send: () => {}, hear: (message, buffers) => fire("msg:custom", message, buffers) };
}
const LOOK = { index: 0, T: 1, alpha: 0.5, t_squared: true, bias: 0, step: 0, plain: false, labels: [], order: null, highlight: [], x_label: "", y_label: "",
  y_min: null, y_max: null, log_x: false, log_y: false, cursor: false, x_name: "step", recipe: "", inputs: {}, history: new DataView(new ArrayBuffer(0)) };

function curvesIn(el, traits) { // → {add(name, step, value), clear()}
  const model = local({ ...LOOK, x_label: "step", height: 300, ...traits }), piece = Curves();
  piece.initialize({ model });
  piece.render({ model, el });
  const add = (points) => { // [[name, step, value], …]
    const names = [...new Set(points.map(([name]) => name))], own = names.map((name) => points.filter((p) => p[0] === name));
    model.hear({ kind: "append", names, counts: own.map((some) => some.length) }, [new DataView(Float32Array.from(own.flat().flatMap(([, x, y]) => [x, y])).buffer)]);
  };
  return { add, clear: () => model.set("history", new DataView(new ArrayBuffer(0))) };
}

// A drawing of side × side bytes as MNIST keeps its digits: kdlab.data.like_mnist.
function likeMnist(ink, side) {
  const most = Math.max(...ink), dark = [...ink.keys()].filter((p) => ink[p] > 0.02 * most), sheet = new Uint8Array(784);
  if (!most) return null;
  const rows = dark.map((p) => Math.floor(p / side)), columns = dark.map((p) => p % side);
  const [top, left] = [Math.min(...rows), Math.min(...columns)], [H, W] = [Math.max(...rows) - top + 1, Math.max(...columns) - left + 1];
  const [h, w] = [H, W].map((n) => Math.max(1, Math.round((20 * n) / Math.max(H, W)))), small = new Float64Array(h * w);
  const parts = (n, of) => Array.from({ length: n }, (_, i) => [Math.floor((i * of) / n), Math.ceil(((i + 1) * of) / n)]);
  parts(h, H).forEach(([r0, r1], i) => parts(w, W).forEach(([c0, c1], j) => {
    for (let r = r0; r < r1; r += 1) for (let c = c0; c < c1; c += 1) small[i * w + j] += ink[(top + r) * side + left + c];
    small[i * w + j] /= (r1 - r0) * (c1 - c0);
  }));
  const mass = small.reduce((a, b) => a + b, 0);
  const corner = (n, place) => { // so that the center of mass falls on the middle, and all of it on the sheet
    const center = small.reduce((sum, v, p) => sum + v * place(p), 0) / mass;
    return Math.min(Math.max(Math.round(14 - center), 0), 28 - n);
  };
  const [y, x] = [corner(h, (p) => Math.floor(p / w)), corner(w, (p) => p % w)];
  small.forEach((v, p) => { sheet[(y + Math.floor(p / w)) * 28 + x + (p % w)] = Math.round(v); });
  return sheet;
}

async function unzipped(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// ---- small parts

function rangeIn(el, name, said, low, high, log, step, act) { // a slider with its value; → {get, put, limit}
  const label = make(el, "label", { class: "kd-range" }), from = log ? Math.log10(low) : low, to = log ? Math.log10(high) : high;
  make(label, "span", { text: said });
  const input = make(label, "input", { type: "range", min: from, max: to, step: step ?? (log ? 0.01 : (to - from) / 200), name, "aria-label": said }), shown = make(label, "output");
  let exact = null; // a value that was put, which may lie between two places of the slider
  const get = () => exact ?? (log ? Number((10 ** input.value).toPrecision(3)) : Number(input.value));
  const show = () => { set(shown, { text: short(Number(get().toPrecision(3))) }); input.setAttribute("aria-valuetext", shown.textContent); };
  input.addEventListener("input", () => { exact = null; show(); act(get()); });
  return { get, put: (value) => { exact = Number(value); input.value = log ? Math.log10(value) : value; show(); }, limit: (most) => { input.max = most; show(); } };
}
function buttonsIn(el, list) {
  const bar = make(el, "div", { class: "kd-buttons" });
  return Object.fromEntries(list.map(([name, text, title, act]) => {
    const button = make(bar, "button", { type: "button", title, text, "data-act": name });
    button.addEventListener("click", act);
    return [name, button];
  }));
}
const percent = (errors, n) => (100 * errors.reduce((a, b) => a + b, 0)) / errors.length / n;
function spread(errors, n) { // of the mean over seeds: its standard error
  const mean = percent(errors, n), own = errors.map((e) => (100 * e) / n);
  return errors.length < 2 ? 0 : Math.sqrt(own.reduce((s, v) => s + (v - mean) ** 2, 0) / (errors.length - 1) / errors.length);
}
const called = (name) => (name === "alone" ? "student alone" : `distilled ${name}`);

// The test image of which the teacher is nearly sure, and right, and that looks most like another class.
function doubtful({ classes, y, t }) {
  const p = (i, T) => softmax(Array.from(t.subarray(i * classes, (i + 1) * classes)), T);
  let best = 0, most = -1;
  for (let i = 0; i < y.length; i += 1) {
    const sure = p(i, 1)[y[i]], second = Math.max(...p(i, 4).filter((_, c) => c !== y[i]));
    if (sure > 0.9 && second > most) [best, most] = [i, second];
  }
  return best;
}

// ---- the panel

// el: where it goes; source: the worker's program; packed: bytes of the data, gzipped; given: knobs and setup to begin with,
// and opening: {steps, fork: {T: 0.3}}, with which it opens in the middle of two runs.
// changed({knobs and setup}): called when a hand turned one; kept(log): with a log that was saved; opened(header): with the test
// images, their labels and the teacher's logits. Returns {remove, worker, listen}: listen(f) calls f with all that the worker reports.
function inPage({ el, source, packed, given: { opening, ...given } = {}, changed = () => {}, kept = () => {}, opened = () => {} }) {
  el.classList.add("kd", "kd-page");
  if (typeof Worker === "undefined" || typeof DecompressionStream === "undefined") {
    make(el, "p", { class: "kd-problem", role: "alert", text: "This browser is too old to train a student in the page: it needs Web Workers and DecompressionStream (Chrome 80, Firefox 113, Safari 16.4, or later)." });
    return { remove: () => {} };
  }
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" })), worker = new Worker(url);
  const now = { ...START, ...SETUP, ...given }, still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let header = null, last = null, active = "A", playing = false, waiting = 0, drawnAt = 0, look = Number(given.image ?? 0) || 0, points = { errors: [], terms: [] };
  const listeners = new Set();
  const ask = (message) => worker.postMessage(message);
  const knobs = () => Object.fromEntries(KNOBS.map(([name]) => [name, Number(now[name])]));
  const missing = () => String(now.missing).split("").filter((c) => c >= "0" && c <= "9").map(Number);
  const setup = () => ({ hidden: new Array(Number(now.layers)).fill(Number(now.units)), n: Number(now.images), missing: missing(), seeds: Array.from({ length: Number(now.seeds) }, (_, i) => i) });

  const parts = page(el);
  const restart = () => { points = { errors: [], terms: [] }; parts.errors.clear(); parts.terms.clear(); active = "A"; playing = false; ask({ begin: setup(), knobs: knobs() }); };
  const say = (text, bad = false) => { set(parts.status, { text, class: bad ? "kd-problem" : "kd-said" }); };

  const buttons = buttonsIn(parts.buttons, [
    ["play", "▶ Play", "train, until Pause", () => ask({ play: !playing })],
    ["step", "Step", "take one minibatch", () => ask({ step: 1 })],
    ["reset", "Reset", "begin again with these knobs", restart],
    ["fork", "Fork", "copy this run; the knobs then turn the copy", () => ask({ fork: active })],
    ["save", "Save log", "the knobs' log, which kdlab.live.replay reads in Python", () => ask({ log: active })],
    ["load", "Load log", "follow a log that was saved here or in Python", () => parts.file.click()]]);
  const sliders = Object.fromEntries(KNOBS.map(([name, said, low, high, log]) => {
    const slider = rangeIn(parts.knobs, name, said, low, high, log, null, (value) => {
      if (active === "A") now[name] = value;
      ask({ turn: { [name]: value }, of: active });
      changed({ ...now });
      if (name === "T") bars();
    });
    slider.put(now[name]);
    return [name, slider];
  }));
  const turned = (name) => (value) => { now[name] = value; changed({ ...now }); restart(); };
  for (const [name, said, low, high, step] of [["units", "units of a hidden layer", 10, 100, 10], ["layers", "hidden layers", 1, 2, 1], ["images", "training images", 100, 3000, 100], ["seeds", "seeds side by side", 1, 5, 1]]) {
    sliders[name] = rangeIn(parts.setup, name, said, low, high, false, step, turned(name));
    sliders[name].put(now[name]);
  }
  const chips = make(parts.setup, "fieldset", { class: "kd-chips" });
  make(chips, "legend", { text: "digits missing from the training images" });
  const boxes = Array.from({ length: 10 }, (_, digit) => {
    const label = make(chips, "label"), box = make(label, "input", { type: "checkbox", name: `missing ${digit}` });
    make(label, "span", { text: String(digit) });
    box.checked = missing().includes(digit);
    box.addEventListener("change", () => turned("missing")(boxes.map((b, d) => (b.checked ? d : "")).join("")));
    return box;
  });
  const bias = rangeIn(parts.bias, "bias", "bias, added to the logits of the missing digits", -10, 10, false, 0.1, (value) => ask({ bias: value }));
  bias.put(0);
  const seen = rangeIn(parts.chosen, "image", "test image", 0, 999, false, 1, (value) => { look = value; now.image = value; changed({ ...now }); ask({ look }); });

  const pad = local({ ...LOOK, title: "draw a digit", side: SIDE, ink: new DataView(new ArrayBuffer(0)) });
  Pad.render({ model: pad, el: parts.pad });
  pad.on("change:ink", () => {
    const ink = bytesAt(pad.get("ink")), sheet = ink.length ? likeMnist(ink, SIDE) : null;
    ask({ draw: sheet });
    parts.read.put({ title: sheet ? "what the students see in it" : "what the students see in it: draw a digit first" });
  });

  function bars() {
    if (!header || !last || last.look !== look) return; // the answers for this image are on their way
    const asked = (rows) => Object.fromEntries(Object.entries(rows).map(([name, row]) => [called(name), [row]]));
    const T = sliders.T.get(), { classes } = header;
    parts.soft.put({ T, inputs: { teacher: [Array.from(header.t.subarray(look * classes, (look + 1) * classes))], ...asked(last.shown) }, highlight: [header.y[look]] });
    parts.read.put({ T: 1, inputs: last.drawing ? asked(last.drawing) : Object.fromEntries(Object.keys(asked(last.shown)).map((name) => [name, []])) });
    parts.image.put({ index: look });
  }
  function table() {
    const head = ["run", "step", `wrong of ${header.n_test.toLocaleString("en")}`, "error rate, %", "T", "alpha", "learning rate", "smoothing"];
    const rows = last.groups.map(({ name, number, used, errors }) => {
      const e = spread(errors, header.n_test), mean = errors.reduce((a, b) => a + b, 0) / errors.length;
      return [called(name), number.toLocaleString("en"), short(mean), `${percent(errors, header.n_test).toFixed(1)}${errors.length > 1 ? ` ± ${e.toFixed(1)} (${errors.length} seeds)` : ""}`,
        ...(name === "alone" ? ["–", "0"] : [short(Number(used.T.toPrecision(3))), short(Number(used.alpha.toPrecision(3)))]), short(used.lr), short(used.smoothing)];
    });
    join(parts.head, "th", head, (text) => ({ text, scope: "col" }));
    while (parts.body.childNodes.length > rows.length) parts.body.lastChild.remove();
    rows.forEach((row, i) => join(parts.body.childNodes[i] ?? make(parts.body, "tr"), "td", row, (text) => ({ text })));
  }
  function choose() { // which run the knobs turn; shown once there are two
    const names = last.groups.map(({ name }) => name).filter((name) => name !== "alone");
    join(parts.choice, "button", names.length > 1 ? names : [], (name) => ({ type: "button", text: `knobs of ${called(name)}`, "aria-pressed": name === active, "data-run": name }));
  }
  parts.choice.addEventListener("click", ({ target }) => { if (target.dataset.run) activate(target.dataset.run); });
  function activate(name) {
    active = name;
    const { used } = last.groups.find((g) => g.name === name);
    KNOBS.forEach(([knob]) => sliders[knob].put(used[knob]));
    choose();
    bars();
  }
  function draw() {
    waiting = 0;
    drawnAt = performance.now();
    if (points.errors.length) parts.errors.add(points.errors);
    if (points.terms.length) parts.terms.add(points.terms);
    points = { errors: [], terms: [] };
    table();
    bars();
    const { rate, groups, n } = last, a = groups[1];
    const grown = groups.filter(({ diverged }) => diverged).map(({ name }) => called(name));
    if (grown.length) say(`the loss of ${grown.join(" and ")} is over ten times what it was at first: the learning rate is too high. Lower it, and press Reset`, true);
    else if (!last.problem) say(playing || a.number ? `step ${a.number.toLocaleString("en")}; each run has seen ${short(Math.round((64 * a.number) / n * 10) / 10)} times its ${n.toLocaleString("en")} images${rate ? `; ${Number(rate.toPrecision(2)).toLocaleString("en")} images a second` : ""}` : "press Play, and turn the knobs while it learns");
  }
  worker.onmessage = ({ data }) => {
    listeners.forEach((f) => f(data));
    if (data.kind === "log") { save(data.log); return; }
    if (data.kind !== "state") return;
    if (data.problem) say(data.problem, true);
    if (!data.groups) return;
    last = data;
    playing = data.playing;
    set(buttons.play, { text: playing ? "❚❚ Pause" : "▶ Play" });
    for (const { name, number, errors } of data.marks) points.errors.push([called(name), number, Math.max(percent(errors, header.n_test), 0.05)]);
    for (const { name, number, terms } of data.groups) if (terms && number) points.terms.push(...(name === "alone" ? [["student alone, label", number, terms[0]]] : [[`${called(name)}, soft targets`, number, terms[1]], [`${called(name)}, label`, number, terms[0]]]));
    if (data.ready) { el.dataset.ready = true; seen.put(look); ask({ look }); }
    if (data.ready && opening) ask({ open: opening });
    if (data.ready || data.begun) parts.bias.hidden = !missing().length;
    if (data.forked) { active = data.forked; say(`run ${data.forked} begins here; the knobs turn it now`); }
    if (data.ready || data.begun || data.forked) { choose(); activate(active); }
    el.dataset.shown = JSON.stringify({ groups: data.groups, playing, rate: data.rate, problem: data.problem });
    const wait = playing ? (still ? 500 : DRAW) - (performance.now() - drawnAt) : 0;
    waiting ||= setTimeout(() => requestAnimationFrame(draw), Math.max(0, wait));
  };
  worker.onerror = (event) => say(`the page's program failed: ${event.message}`, true);
  function save(log) {
    const link = make(el, "a", { href: URL.createObjectURL(new Blob([`${JSON.stringify({ ...log, page: { ...now, run: active } }, null, 1)}\n`], { type: "application/json" })), download: "live.json" });
    link.click();
    link.remove();
    kept({ ...log, page: { ...now } });
    say(`${log.turns.length} turns and ${log.steps.toLocaleString("en")} steps saved as live.json; kdlab.live.replay reads it in Python`);
  }
  parts.file.addEventListener("change", async () => {
    const [file] = parts.file.files;
    parts.file.value = "";
    try { ask({ follow: JSON.parse(await file.text()) }); } catch (error) { say(`not loaded: ${error.message}`, true); }
  });
  const hide = () => { if (document.hidden && playing) ask({ play: false }); }; // nobody looks on
  document.addEventListener("visibilitychange", hide);
  say("loading");
  unzipped(packed).then((buffer) => {
    const { test, ...rest } = unpack(buffer);
    header = { ...rest, ...test };
    look = Math.min(Math.max(0, given.image === undefined ? doubtful(header) : look), header.n_test - 1);
    parts.image.put({ images: new DataView(header.images.buffer, header.images.byteOffset, header.images.length), shape: [header.n_test, header.side, header.side], captions: Array.from(header.y, (c) => `a ${header.names[c]}`), labels: header.names });
    parts.soft.put({ labels: header.names });
    parts.read.put({ labels: header.names });
    seen.limit(header.n_test - 1);
    sliders.images.limit(header.n);
    opened(header);
    ask({ pack: buffer, begin: setup(), knobs: knobs() });
  }, () => say("the data of this page are damaged: save or export it again", true));
  return { remove: () => { worker.terminate(); URL.revokeObjectURL(url); document.removeEventListener("visibilitychange", hide); }, worker, listen: (f) => listeners.add(f) };
}
const bytesAt = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

function page(el) { // the panel's rooms, empty
  const room = (parent, name) => make(parent, "div", { class: `kd-room-${name}` });
  const controls = room(el, "controls"), buttons = room(controls, "buttons"), status = make(controls, "p", { class: "kd-said", role: "status" }), choice = make(controls, "div", { class: "kd-buttons" });
  const knobs = room(controls, "knobs"), details = make(controls, "details", { class: "kd-setup" });
  make(details, "summary", { text: "Students and data: size, number of images, missing digits, seeds" });
  const setup = room(details, "setup"), bias = room(controls, "bias"), pictures = room(el, "pictures"), of = (name) => make(pictures, "div", { class: `kd kd-picture-${name}` });
  bias.hidden = true;
  const errors = curvesIn(of("errors"), { title: "Test error rate", y_label: "percent of the test images", log_y: true });
  const terms = curvesIn(of("terms"), { title: "The terms of the loss", y_label: "loss, nats", log_y: true });
  const cases = make(pictures, "div", { class: "kd-room-cases" }), soft = local({ ...LOOK, recipe: "nets", title: "Soft targets of a test image", y_label: "probability at T", y_max: 1, height: 260 });
  const chosen = make(cases, "div"), row = make(cases, "div", { class: "kd-row" }), image = local({ ...LOOK, images: new DataView(new ArrayBuffer(0)), shape: [0, 28, 28], show: [], captions: [], size: 112 });
  Digit.render({ model: image, el: make(row, "div") });
  soft.set("inputs", { teacher: [], "student alone": [], "distilled A": [] });
  soft.set("labels", [..."0123456789"]);
  Bars.render({ model: soft, el: make(row, "div", { class: "kd-wide" }) });
  const draw = make(pictures, "div", { class: "kd-room-pad kd-row" }), pad = make(draw, "div"), read = local({ ...LOOK, recipe: "nets", title: "what the students see in it: draw a digit first", y_label: "probability", y_max: 1, height: 260, labels: [..."0123456789"], inputs: { "student alone": [], "distilled A": [] } });
  Bars.render({ model: read, el: make(draw, "div", { class: "kd-wide" }) });
  const table = make(el, "table", { class: "kd-runs" }), head = make(make(table, "thead"), "tr"), body = make(table, "tbody");
  const file = make(el, "input", { type: "file", accept: ".json,application/json", hidden: true });
  return { buttons, status, choice, knobs, setup, bias, errors, terms, chosen, soft, image, pad, read, head, body, file };
}

function inNotebook({ model, el }) { // the panel as a widget; it begins when it is first seen
  const keep = (log) => { model.set("log", log); model.save_changes(); };
  let remove = () => {};
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    ({ remove } = inPage({ el, source: model.get("source"), packed: bytesAt(model.get("packed")), given: model.get("given"), kept: keep }));
  });
  el.style.minHeight = "40px";
  seen.observe(el);
  return () => { seen.disconnect(); remove(); };
}
