// Named points, cost against score, and the front: those that no other beats in one without losing in the other.
function render({ model, el }) {
  const at = frame(el), svg = make(at.picture, "svg", { class: "kd-svg" });
  const [grid, tickY, tickX, lines, dots, names] = ["grid", "tick", "text", "grid", "dots", "text"].map(
    (name) => make(svg, "g", { class: `kd-${name}` }));
  const [yName, now, xName] = ["kd-y", "kd-now", "kd-x"].map((name) => make(svg, "text", { class: name }));

  const span = (v) => { const low = Math.min(...v), high = Math.max(...v), room = 0.12 * (high - low) || 1; return [low - room, high + room]; };
  function place(points, width, taken) { // beside its dot, where it covers no name and no dot; else not at all
    for (const [dx, dy] of [[10, 5], [10, -12], [-10, 5], [-10, -12], [10, 20], [-10, 20]]) {
      const w = 8 * points.name.length, x = points.x + dx, left = dx > 0 ? x : x - w, y = points.y + dy;
      const box = { left, right: left + w, top: y - 13, bottom: y + 4 };
      const free = !taken.some((o) => box.left < o.right && o.left < box.right && box.top < o.bottom && o.top < box.bottom);
      if (free && left > 60 && box.right < width - 4) { taken.push(box); return { x, y, anchor: dx > 0 ? "start" : "end" }; }
    }
    return null;
  }

  return keepDrawn(model, el, (width) => {
    const k = knobs(model), { costs, score } = inputsOf(model), height = model.get("height");
    const made = recipes.front(inputsOf(model), k), cost = costs?.[k.index] ?? [], current = model.get("current");
    const n = cost.length, left = 56, right = width - 14, top = 40, bottom = height - 48;
    const [y0, y1] = n ? span(score) : [0, 1], xs = n ? span(cost.map(Math.log)) : [0, 1], [x0, x1] = xs.map(Math.exp);
    const py = (v) => Number((bottom - (bottom - top) * (v - y0) / (y1 - y0)).toFixed(1));
    const px = (v) => Number((left + (right - left) * (Math.log(v) - xs[0]) / (xs[1] - xs[0])).toFixed(1));
    set(svg, { width, height });
    set(yName, { x: 0, y: 16, text: model.get("y_label") });
    set(now, { x: right, y: 16, text: model.get("now") });
    set(xName, { x: right, y: height - 7, text: model.get("costs")[k.index] ?? "" });
    const level = n ? ticks(y0, y1, false) : [], upright = n ? steps(x0, x1, (right - left) / 70) : [];
    join(grid, "line", [...level.map((v) => ({ x1: left, x2: right, y1: py(v), y2: py(v) })),
      ...upright.map((v) => ({ x1: px(v), x2: px(v), y1: top, y2: bottom }))], (d) => d);
    join(tickY, "text", level, (v) => ({ x: left - 8, y: py(v) + 5, text: short(v) }));
    join(tickX, "text", upright, (v) => ({ x: px(v), y: bottom + 21, text: short(v) }));
    const best = made.front.map((i) => [px(cost[i]), py(score[i])]); // steps: up to there nothing better is to be had
    const path = best.map(([x, y], i) => `${i ? `H${x}V${y}` : `M${x} ${y}`}`).join("");
    join(lines, "path", path ? [path + `H${right}`] : [], (d) => ({ d, class: "kd-front" }));
    const points = cost.map((v, i) => ({ i, name: k.labels[i], x: px(v), y: py(score[i]), best: made.front.includes(i) }));
    points.sort((a, b) => (a.i === current) - (b.i === current)); // the latest on top
    join(dots, "circle", points, (p) => ({ cx: p.x, cy: p.y, r: p.i === current ? 8 : 5.5,
      class: p.i === current ? "kd-latest" : p.best ? "kd-best" : "kd-other" }));
    points.forEach((p, i) => { // the words that a pointer brings up
      const node = dots.childNodes[i];
      set(node.firstChild ?? make(node, "title"), { text: `${p.name}: ${read(score[p.i])}, ${read(cost[p.i])} ${model.get("costs")[k.index]}` });
    });
    const taken = points.map((p) => ({ left: p.x - 6, right: p.x + 6, top: p.y - 6, bottom: p.y + 6 }));
    const first = [...points].sort((a, b) => (b.i === current) - (a.i === current) || b.best - a.best);
    const said = first.map((p) => ({ ...p, said: place(p, width, taken) })).filter((p) => p.said);
    join(names, "text", said, (p) => ({ x: p.said.x, y: p.said.y, text: p.name,
      style: `text-anchor: ${p.said.anchor}; ${p.i === current ? "font-weight: 700" : p.best ? "" : "opacity: 0.65"}` }));
    words(el, at, model, { index: k.index, n, front: made.front.map((i) => k.labels[i]), now: model.get("now"),
      said: points.map((p) => `${p.name}: ${read(score[p.i])}`).join(", ") });
  });
}
function steps(low, high, most) { // 1, 2, 5 and their like between low and high, all if there is room, else the decades
  const from = Math.floor(Math.log10(low)), all = Array.from({ length: 12 }, (_, i) => from + i);
  for (const few of [[1, 1.5, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5], [1, 2, 5], [1]]) {
    const found = all.flatMap((e) => few.map((m) => Number(`${m}e${e}`))).filter((v) => v >= low && v <= high);
    if (found.length <= Math.max(3, most)) return found;
  }
  return [];
}
export default { render };
