// Lines on a canvas: a recipe's curves with a cursor at T, or points that arrive while a net trains.
const DASHES = [[], [8, 5], [2, 4]]; // of lines of one color
export default () => {
  let points = new Map(); // name → { x: [], y: [] }: shared by all views of this model, heard before the first one
  const views = new Set();

  function take(names, counts, buffer) {
    const xy = new Float32Array(buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength));
    let at = 0;
    names.forEach((name, i) => {
      if (!points.has(name)) points.set(name, { x: [], y: [] });
      const s = points.get(name);
      for (const end = at + 2 * counts[i]; at < end; at += 2) { s.x.push(xy[at]); s.y.push(xy[at + 1]); }
    });
  }
  function recall(model) {
    points = new Map();
    if (model.get("history").byteLength) take(model.get("history_names"), model.get("history_counts"), model.get("history"));
  }
  function initialize({ model }) {
    recall(model);
    model.on("change:history", () => recall(model));
    model.on("msg:custom", (message, buffers) => {
      if (message.kind === "append") { take(message.names, message.counts, buffers[0]); views.forEach((view) => view()); }
    });
  }

  function render({ model, el }) {
    const at = frame(el), canvas = make(at.picture, "canvas", { class: "kd-canvas" }), c = canvas.getContext("2d");
    let hover = null, waiting = 0, last = 640;

    const kind = (s) => s.name.split(",")[0]; // what a line's color stands for
    function nearest(xs, x) { // xs grow
      let low = 0, high = xs.length - 1;
      while (high - low > 1) { const mid = (low + high) >> 1; if (xs[mid] < x) low = mid; else high = mid; }
      return Math.abs(xs[low] - x) < Math.abs(xs[high] - x) ? low : high;
    }
    function span(all, log, low, high) {
      let least = Infinity, most = -Infinity;
      for (const list of all) for (const v of list) if (Number.isFinite(v) && (!log || v > 0)) {
        if (v < least) least = v;
        if (v > most) most = v;
      }
      if (least > most) [least, most] = log ? [0.1, 1] : [0, 1];
      if (least === most) [least, most] = log ? [least / 2, most * 2] : [least - 0.5, most + 0.5];
      return [low ?? least, high ?? most];
    }

    function draw(width) {
      last = width;
      const k = knobs(model), recipe = model.get("recipe"), height = model.get("height");
      const made = recipe ? recipes[recipe](inputsOf(model), k) : { numbers: [] };
      const series = made.series?.map((s) => ({ name: s.name, x: made.x, y: s.values, at: s.at }))
        ?? [...points].map(([name, s]) => ({ name, ...s }));
      const logX = model.get("log_x"), logY = model.get("log_y");
      const cursor = made.cursor ?? (model.get("cursor") ? k.T : null), whole = recipe ? made.cursor !== undefined : true;
      const [x0, x1] = span(series.map((s) => s.x), logX), [yl, yh] = span(series.map((s) => s.y), logY,
        model.get("y_min"), model.get("y_max"));
      const pad = logY ? 0 : (yh - yl) * 0.05; // a log axis shows six decades at the most
      const y0 = logY ? Math.max(yl, yh * 1e-6) : model.get("y_min") ?? yl - pad, y1 = model.get("y_max") ?? yh + pad;

      const dots = window.devicePixelRatio || 1, style = getComputedStyle(el), ink = style.color;
      const W = Math.round(width * dots), H = Math.round(height * dots);
      if (canvas.width !== W || canvas.height !== H) { canvas.width = W; canvas.height = H; }
      Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
      c.setTransform(dots, 0, 0, dots, 0, 0);
      c.clearRect(0, 0, width, height);
      c.font = `15px ${style.fontFamily}`;
      const names = series.map((s) => `${s.name}  0.0000`); // room for the widest
      const right = width - 14 - Math.min(Math.max(60, ...names.map((t) => c.measureText(t).width)) + 18, width * 0.4);
      const left = 60, top = 34, bottom = height - 48;
      const part = (v, a, b, log) => (log ? Math.log(v / a) / Math.log(b / a) : (v - a) / (b - a));
      const px = (v) => left + (right - left) * part(v, x0, x1, logX), py = (v) => bottom - (bottom - top) * part(v, y0, y1, logY);
      const line = (ax, ay, bx, by) => { c.beginPath(); c.moveTo(ax, ay); c.lineTo(bx, by); c.stroke(); };
      const text = (t, x, y, align, room) => { c.textAlign = align; c.fillText(t, x, y, room); };

      c.fillStyle = c.strokeStyle = ink;
      for (const v of ticks(y0, y1, logY)) {
        c.globalAlpha = 0.15; line(left, py(v), right, py(v)); c.globalAlpha = 0.8;
        text(short(v).replace("-", "−"), left - 8, py(v) + 5, "right");
      }
      for (const v of ticks(x0, x1, logX, Math.max(2, Math.min(6, (right - left) / 90)))) {
        c.globalAlpha = 0.4; line(px(v), bottom, px(v), bottom + 5); c.globalAlpha = 0.8;
        text(short(v), px(v), bottom + 21, "center");
      }
      c.globalAlpha = 0.6; line(left, bottom, right, bottom); c.globalAlpha = 1;
      text(model.get("x_label"), right, height - 7, "right");
      text(model.get("y_label"), 0, 16, "left");

      c.save(); c.beginPath(); c.rect(left - 2, top - 4, right - left + 4, bottom - top + 8); c.clip();
      c.lineWidth = 2.5; c.lineJoin = "round";
      const kinds = [...new Set(series.map(kind))], colors = colorsOf(kinds); // "alone, seed 0" and "alone, seed 1" share one, not a dash
      const paint = series.map((s, i) => {
        const k = kinds.indexOf(kind(s)), nth = series.slice(0, i).filter((other) => kind(other) === kind(s)).length;
        return { color: style.getPropertyValue(`--kd-${colors[k]}`), dash: DASHES[(Math.floor(k / COLORS.length) + nth) % DASHES.length] };
      });
      series.forEach((s, i) => {
        c.strokeStyle = paint[i].color;
        c.setLineDash(paint[i].dash);
        c.beginPath();
        let pen = false; // a gap where a value is missing, or not positive on a log axis
        s.y.forEach((v, j) => {
          const ok = Number.isFinite(v) && (!logY || v > 0);
          if (ok) c[pen ? "lineTo" : "moveTo"](px(s.x[j]), py(v));
          pen = ok;
        });
        c.stroke();
      });
      c.restore(); c.setLineDash([]); c.lineWidth = 1;

      const inside = hover !== null && hover >= left && hover <= right, turn = part(hover - left, 0, right - left);
      const x = inside ? (logX ? x0 * (x1 / x0) ** turn : x0 + turn * (x1 - x0)) : cursor;
      if (x !== null && x >= x0 && x <= x1) {
        c.globalAlpha = 0.7; line(px(x), top - 6, px(x), bottom); c.globalAlpha = 1;
        const half = 40; // the read-out stays inside
        text(`${model.get("x_name")} ${whole && x >= 1 ? Math.round(x) : read(x)}`, // a step; no part of 1
          Math.min(Math.max(px(x), left + half), right - half), top - 12, "center");
      }
      const notes = series.map((s, i) => {
        const j = x === null ? s.x.length - 1 : nearest(s.x, x), v = !inside && s.at !== undefined ? s.at : s.y[j];
        const where = x === null || !whole ? x ?? x1 : s.x[j];
        if (where >= x0 && where <= x1 && Number.isFinite(v) && (!logY || v > 0) && v >= y0 && v <= y1) {
          c.fillStyle = paint[i].color;
          c.beginPath(); c.arc(px(where), py(v), 4.5, 0, 7); c.fill();
        }
        const end = s.y.findLast((u) => Number.isFinite(u) && (!logY || u > 0)) ?? y0;
        const count = Number.isInteger(v) && Array.prototype.every.call(s.y, (u) => !Number.isFinite(u) || Number.isInteger(u));
        return { i, v: count ? String(v) : read(v), y: Math.min(Math.max(py(end), top), bottom), name: s.name };
      }).sort((a, b) => a.y - b.y);
      notes.forEach((note, j) => { if (j) note.y = Math.max(note.y, notes[j - 1].y + 21); });
      const over = Math.max(0, (notes.at(-1)?.y ?? 0) - bottom);
      notes.forEach((note) => { // each line's name at its end, with its value at the cursor
        c.fillStyle = paint[note.i].color;
        c.strokeStyle = paint[note.i].color;
        c.lineWidth = 4;
        c.setLineDash(paint[note.i].dash.map((v) => v / 2));
        line(right + 6, note.y - over - 1, right + 22, note.y - over - 1);
        c.setLineDash([]);
        c.lineWidth = 1;
        c.fillStyle = ink;
        text(`${note.name}  ${note.v}`, right + 26, note.y - over + 5, "left", width - right - 28);
      });

      words(el, at, model, { T: k.T, index: k.index, numbers: made.numbers, cursor,
        series: series.map((s) => ({ name: s.name, n: s.x.length, first: s.y[0], last: s.y.at(-1), at: s.at })),
        said: recipe ? "" : series.map((s) => `${s.name} ${read(s.y.at(-1))}`).join(", ") });
    }

    const soon = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; draw(last); }); }; // many points, one frame
    canvas.addEventListener("pointermove", (e) => { hover = e.offsetX; soon(); });
    canvas.addEventListener("pointerleave", () => { hover = null; soon(); });
    views.add(soon);
    const stop = keepDrawn(model, el, draw);
    return () => { views.delete(soon); cancelAnimationFrame(waiting); stop(); };
  }
  return { initialize, render };
};
