// What the pieces share: reuse of nodes (no flicker), ticks, formats, and redrawing on change, resize and theme.
const SVG = "http://www.w3.org/2000/svg";
// Colors --kd-1 … --kd-6 of style.css, by the role that a name begins with; what has none takes those that are left.
const ROLES = [[/^(teacher|ensemble|soft target$)/, 5], [/^(student )?alone|^labels/, 6], [/^label$/, 2], [/^(student|distilled|soft targets)/, 1]];
const COLORS = [1, 2, 3, 4, 5, 6];

function colorsOf(names) { // → one number a name
  const taken = new Set(), role = names.map((name) => ROLES.find(([begins]) => begins.test(name))?.[1]);
  const first = role.map((color) => { if (!color || taken.has(color)) return 0; taken.add(color); return color; });
  const rest = COLORS.filter((color) => !taken.has(color));
  let next = 0;
  return first.map((color) => color || (rest.length ? rest[next++ % rest.length] : COLORS[next++ % COLORS.length]));
}

function make(parent, tag, attributes = {}) {
  const svg = ["svg", "g", "rect", "line", "text", "path", "circle", "title"].includes(tag);
  return set(parent.appendChild(svg ? document.createElementNS(SVG, tag) : document.createElement(tag)), attributes);
}
function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") { if (node.textContent !== value) node.textContent = value; }
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
  return node;
}
function join(parent, tag, data, attributes) { // children of `parent` become one node a datum, kept from draw to draw
  while (parent.childNodes.length > data.length) parent.lastChild.remove();
  data.forEach((d, i) => set(parent.childNodes[i] ?? make(parent, tag), attributes(d, i)));
}

function short(v) { // for ticks: 0.25, 20, 1e-5
  if (v === 0) return "0";
  const a = Math.abs(v);
  return a >= 1e5 || a < 1e-3 ? v.toExponential(1).replace(".0e", "e").replace("+", "") : String(Number(v.toPrecision(3)));
}
function read(v, small = 4) { // for read-outs: about three digits, of steady width; `small`: decimals below 0.01
  if (!Number.isFinite(v)) return "–";
  const a = Math.abs(v);
  return (a >= 1e5 || (a < 1e-3 && a > 0) ? v.toExponential(1).replace("+", "") : v.toFixed(a < 0.01 ? small : a < 1 ? 3 : a < 100 ? 2 : 1))
    .replace("-", "−");
}
function ticks(low, high, log, most = 5) {
  if (log) {
    const from = Math.ceil(Math.log10(low) - 1e-9), to = Math.floor(Math.log10(high) + 1e-9);
    const every = Math.max(1, Math.ceil((to - from + 1) / (most + 2)));
    const all = Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);
    const decades = all.filter((e) => e % every === 0).map((e) => Number(`1e${e}`));
    const fine = [1, 2, 5].flatMap((m) => [from - 1, ...all].map((e) => Number(`${m}e${e}`)));
    return decades.length > 1 ? decades : fine.filter((v) => v >= low && v <= high);
  }
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999) ?? rough;
  const first = Math.ceil(low / step - 1e-9), n = Math.max(0, Math.floor(high / step + 1e-9) - first + 1);
  return Array.from({ length: n }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

const knobs = (model) => Object.fromEntries(
  ["index", "T", "alpha", "t_squared", "bias", "step", "plain", "labels"].map((name) => [name, model.get(name)]));

function inputsOf(model) { // in the order in which they were given: a saved page keeps its names sorted
  const all = model.get("inputs"), order = model.get("order") ?? [];
  return order.length ? Object.fromEntries(order.filter((name) => name in all).map((name) => [name, all[name]])) : all;
}

// title, legend, a place for the picture, and the numbers in words large enough to read from the last row
function frame(el) {
  el.classList.add("kd");
  const [title, legend, picture, numbers] = ["title", "legend", "picture", "numbers"].map(
    (name) => make(el, "div", { class: `kd-${name}` }));
  picture.setAttribute("role", "img");
  return { title, legend, picture, numbers };
}
function words(el, at, model, shown) { // the texts around the picture, the aria-label and dataset.shown
  set(at.title, { text: model.get("title") });
  const numbers = shown.numbers ?? [];
  const count = ({ value, unit }) => (unit?.startsWith("of ") ? value.toLocaleString("en") : read(value)); // no 696.0 of 10,000
  join(at.numbers, "span", numbers.flatMap((n) => [n.label, count(n) + (n.unit ? ` ${n.unit}` : "")]),
    (text, i) => ({ text, class: i % 2 ? "kd-value" : "kd-name" }));
  const said = numbers.map((n) => `${n.label} ${count(n)} ${n.unit}`.trim());
  set(at.picture, { "aria-label": [model.get("title"), shown.T && `T = ${read(shown.T)}`, ...said, shown.said]
    .filter(Boolean).join("; ") });
  el.dataset.shown = JSON.stringify({ ...shown, said: undefined });
}

function keepDrawn(model, el, draw) { // returns the clean-up
  let width = el.clientWidth || 640;
  const redraw = () => draw(width);
  const size = new ResizeObserver(() => {
    if (el.clientWidth && el.clientWidth !== width) { width = el.clientWidth; redraw(); }
  });
  const theme = new MutationObserver(redraw);
  model.on("change", redraw);
  size.observe(el);
  theme.observe(document.body, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-theme"] });
  redraw();
  return () => { model.off("change", redraw); size.disconnect(); theme.disconnect(); };
}
