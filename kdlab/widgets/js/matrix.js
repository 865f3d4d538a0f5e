// A heat map in cividis; one cell can be selected by click or arrow keys.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"]
  .map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
function cividis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1), i = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[i].map((a, c) => Math.round(a + (CIVIDIS[i + 1][c] - a) * (at - i)));
}
const inCell = (v, unit) => (Number.isInteger(v) ? String(v) : unit === "%" ? v.toFixed(1) : Math.abs(v) >= 1 ? short(v)
  : Math.abs(v) < 0.005 ? "0" : v.toFixed(2).replace("0.", "."));

function render({ model, el }) {
  const at = frame(el), svg = make(at.picture, "svg", { class: "kd-svg", "aria-hidden": true });
  set(at.picture, { tabindex: 0, "data-lm-suppress-shortcuts": true }); // its arrow keys are not the notebook's
  const [cells, numbers, rows, columns] = ["cells", "text", "tick", "name"].map((name) => make(svg, "g", { class: `kd-${name}` }));
  const chosen = make(svg, "rect", { class: "kd-chosen" });
  const yName = make(svg, "text", { class: "kd-y", x: 0, y: 15 }), xName = make(svg, "text", { class: "kd-x" });
  const scale = make(svg, "g"), ends = make(svg, "g", { class: "kd-name" });
  let geometry = null;

  function choose(i, j) {
    const { m, n } = geometry;
    model.set("selected", [Math.min(Math.max(i, 0), m - 1), Math.min(Math.max(j, 0), n - 1)]);
    model.save_changes();
  }
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect(), { left, top, size, m, n } = geometry;
    const i = Math.floor((event.clientY - box.top - top) / size), j = Math.floor((event.clientX - box.left - left) / size);
    if (i >= 0 && i < m && j >= 0 && j < n) choose(i, j);
  });
  at.picture.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    const [i, j] = model.get("selected");
    choose((i ?? 0) + move[0], (j ?? -1) + move[1]);
  });

  return keepDrawn(model, el, (width) => {
    const k = knobs(model), recipe = model.get("recipe"), hide = model.get("hide_diagonal");
    const { matrix, unit = "", numbers: said } = recipe ? recipes[recipe](inputsOf(model), k) : { matrix: model.get("values") };
    const m = matrix.length, n = matrix[0].length, name = (names, i) => String(names[i] ?? i);
    const rowNames = matrix.map((_, i) => name(model.get("row_labels").length ? model.get("row_labels") : k.labels, i));
    const columnNames = matrix[0].map((_, j) => name(k.labels, j)), longest = (names) => Math.max(...names.map((t) => t.length));
    const left = Math.max(28, Math.min(longest(rowNames) * 9 + 12, width * 0.35)), top = 30;
    const size = Math.max(8, Math.min((width - left - 8) / n, 52)), slant = longest(columnNames) * 9 > size;
    const below = top + m * size, names = slant ? Math.min(24 + longest(columnNames) * 5.8, 110) : 28;
    geometry = { left, top, size, m, n };
    const flat = matrix.flatMap((row, i) => row.map((v, j) => ({ v, i, j, gone: hide && i === j })));
    const high = model.get("z_max") || Math.max(1e-12, ...flat.filter((d) => !d.gone).map((d) => d.v));
    const color = new Map(flat.map((d) => [d, cividis(d.v / high)])), every = Math.ceil(16 / size);

    set(svg, { width, height: below + names + 58 });
    join(cells, "rect", flat, (d) => ({ x: left + d.j * size + 1, y: top + d.i * size + 1, width: size - 2, height: size - 2,
      class: d.gone ? "kd-gone" : "", fill: d.gone ? "none" : `rgb(${color.get(d)})` }));
    join(numbers, "text", size < 34 ? [] : flat, (d) => {
      const [r, g, b] = color.get(d);
      return { x: left + (d.j + 0.5) * size, y: top + (d.i + 0.5) * size + 5, text: d.gone ? "" : inCell(d.v, unit),
        style: `fill: ${0.3 * r + 0.59 * g + 0.11 * b > 128 ? "#000" : "#fff"}` };
    });
    join(rows, "text", rowNames, (text, i) => ({ x: left - 8, y: top + (i + 0.5) * size + 5, text: i % every ? "" : text }));
    join(columns, "text", columnNames, (text, j) => ({ text: j % every ? "" : text, class: slant ? "kd-slant" : "",
      x: slant ? 0 : left + (j + 0.5) * size, y: slant ? 0 : below + 20,
      transform: slant ? `translate(${left + (j + 0.5) * size + 6} ${below + 14}) rotate(-38)` : "" }));
    set(yName, { text: model.get("y_label") });
    set(xName, { text: model.get("x_label"), x: left + n * size, y: below + names + 14 });
    const [i, j] = model.get("selected"), picked = i < m && j < n;
    set(chosen, { x: left + (j ?? 0) * size, y: top + (i ?? 0) * size, width: size, height: size,
      visibility: picked ? "visible" : "hidden" });
    const legend = below + names + 32, long = Math.min(160, n * size);
    join(scale, "rect", CIVIDIS, (rgb, s) => ({ x: left + (s * long) / CIVIDIS.length, y: legend, height: 14,
      width: long / CIVIDIS.length + 0.5, fill: `rgb(${rgb})` }));
    const most = (Number.isInteger(high) ? String(high) : read(high)) + (unit && ` ${unit}`);
    join(ends, "text", ["0", most], (text, e) => ({ text, x: e ? left + long + 8 : left - 8, y: legend + 13,
      style: `text-anchor: ${e ? "start" : "end"}` }));
    const value = picked ? [{ label: `${rowNames[i]} → ${columnNames[j]}`, value: matrix[i][j], unit }] : [];
    words(el, at, model, { T: recipe ? k.T : undefined, matrix, selected: model.get("selected"),
      numbers: [...(said ?? []), ...value] });
  });
}
export default { render };
