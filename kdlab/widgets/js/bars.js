// Grouped bars of a recipe's series.
function render({ model, el }) {
  const at = frame(el), svg = make(at.picture, "svg", { class: "kd-svg", "aria-hidden": true });
  const [band, grid, ticksAt, bars, values, names] = ["band", "grid", "tick", "bars", "text", "name"].map(
    (name) => make(svg, "g", { class: `kd-${name}` }));
  const zero = make(svg, "line", { class: "kd-axis" }), yName = make(svg, "text", { class: "kd-y", x: 0, y: 15 });

  function range(all, log) {
    const fixed = model.get("y_max");
    if (log) return [model.get("y_min"), fixed || Math.max(1, ...all)];
    const high = fixed || Math.max(0, ...all), low = Math.min(0, ...all);
    if (fixed) return [low && Math.min(low, -fixed), fixed];
    const t = ticks(low, high - low > 1e-12 ? high : low + 1, false), step = t[1] - t[0]; // whole steps: the axis rests
    return [Math.floor(low / step + 1e-9) * step, Math.ceil(Math.max(high, low + step) / step - 1e-9) * step];
  }

  return keepDrawn(model, el, (width) => {
    const k = knobs(model), drawn = recipes[model.get("recipe")](inputsOf(model), k), { series, numbers } = drawn;
    const called = drawn.labels ?? k.labels; // a recipe may show some classes only, and say which
    const n = series[0].values.length, labels = series[0].values.map((_, c) => String(called[c] ?? c));
    const log = model.get("log_y"), height = model.get("height");
    const all = series.flatMap((s) => s.values), [low, high] = range(all, log);
    const left = 56, slot = (width - left - 8) / n, longest = Math.max(...labels.map((l) => l.length));
    const slant = longest * 9 > slot, top = 48, bottom = height - (slant ? Math.min(24 + longest * 5.8, 110) : 32);
    const where = (v) => (log ? Math.log(Math.max(v, low) / low) / Math.log(high / low) : (v - low) / (high - low));
    const y = (v) => Number((bottom - (bottom - top) * where(v)).toFixed(2)), floor = y(log ? low : 0);
    const marked = model.get("highlight"), mark = drawn.mark ?? marked[marked.length > 1 ? k.index : 0] ?? -1;

    set(svg, { width, height });
    set(yName, { text: model.get("y_label") });
    const lines = ticks(low, high, log);
    join(grid, "line", lines, (v) => ({ x1: left, x2: width, y1: y(v), y2: y(v) }));
    join(ticksAt, "text", lines, (v) => ({ x: left - 8, y: y(v) + 5, text: short(v).replace("-", "−") }));
    set(zero, { x1: left, x2: width, y1: floor, y2: floor });
    join(band, "rect", mark < 0 ? [] : [mark], (c) => ({ x: left + 4 + c * slot, y: top - 24, width: slot,
      height: bottom - top + 24 }));
    const colors = colorsOf(series.map((s) => s.name));
    const wide = Math.min((slot * 0.76) / series.length, 72), gap = (slot - wide * series.length) / 2;
    const boxes = series.flatMap((s, i) => s.values.map((v, c) => ({ v, c, i, x: left + 4 + c * slot + gap + i * wide })));
    join(bars, "rect", boxes, ({ v, c, i, x }) => ({ x: x.toFixed(2), y: Math.min(y(v), floor),
      width: Math.max(wide - (series.length > 1 ? 1 : 0), 1).toFixed(2), height: Math.abs(floor - y(v)).toFixed(2),
      style: `fill: var(--kd-${series.length === 1 && c === mark ? 2 : colors[i]})` }));
    const printed = series.length === 1 && slot >= 48 ? boxes : [];
    join(values, "text", printed, ({ v, x }) => ({ x: (x + wide / 2).toFixed(2), y: v < 0 ? y(v) + 17 : y(v) - 6,
      text: Number.isInteger(v) ? short(v) : read(v, 3) }));
    join(names, "text", labels, (text, c) => { // long names lean; crowded ones show every second or third
      const x = left + 4 + (c + 0.5) * slot, every = Math.ceil((slant ? 16 : 0) / slot) || 1;
      return { x: slant ? 0 : x, y: slant ? 0 : bottom + 22, text: c % every ? "" : text,
        transform: slant ? `translate(${x + 6} ${bottom + 16}) rotate(-38)` : "",
        class: (slant ? "kd-slant " : "") + (c === mark ? "kd-true" : "") };
    });
    join(at.legend, "span", series.length > 1 ? series : [], (s, i) => ({ text: s.name, style: `--c: var(--kd-${colors[i]})` }));
    words(el, at, model, { T: k.T, index: k.index, series, numbers, highlight: mark,
      said: series.map((s) => `${s.name}: ${s.values.map((v, c) => `${labels[c]} ${read(v)}`).join(", ")}`).join("; ") });
  });
}
export default { render };
