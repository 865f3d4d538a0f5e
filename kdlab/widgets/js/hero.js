// The idea in one row: an image, its label, the teacher's soft target with what the image looks like, two students' errors.

// el: where it goes; header: as `inPage` opens it. Returns {report}, which takes what the worker reports.
function hero({ el, header, T = 4 }) {
  el.classList.add("kd-hero");
  const { classes, side, images, y, t, names } = header, n = y.length;
  const row = (i) => Array.from(t.subarray(i * classes, (i + 1) * classes)), p = (i, at) => softmax(row(i), at);
  const shown = doubtful(header), target = p(shown, T);
  const typical = names.map((_, c) => surest(n, y, p, c));
  const cell = (title, note) => {
    const box = make(el, "section");
    make(box, "h2", { text: title });
    const body = make(box, "div", { class: "kd" });
    make(box, "p", { text: note });
    return body;
  };
  const bytes = (i) => images.subarray(i * side * side, (i + 1) * side * side);

  paintImage(make(cell("An image", `A handwritten ${names[y[shown]]} of the test set.`), "canvas", { class: "kd-large", role: "img", "aria-label": `a handwritten ${names[y[shown]]}` }), bytes(shown), side);
  bars(cell("Its label", `Says ${names[y[shown]]}, and nothing else.`), { label: [names.map((_, c) => (c === y[shown] ? 20 : -20))] }, 1);
  const soft = cell("The teacher's soft target", `Says that it looks a little like ${alike().map(([c, v]) => `a ${names[c]} (${Math.round(100 * v)} %)`).join(" and ")}, at T = ${T}.`);
  bars(soft, { teacher: [row(shown)] }, T);
  lookAlikes(soft);
  const both = cell("Two students", "Press Play below: one learns from labels, the other from soft targets as well."), rows = make(both, "div", { class: "kd-race" });

  function alike() { return target.map((v, c) => [c, v]).filter(([c, v]) => c !== y[shown] && v > 0.03).sort((a, b) => b[1] - a[1]).slice(0, 3); }
  function bars(where, inputs, at) {
    const model = local({ ...LOOK, recipe: "nets", inputs, T: at, labels: names, highlight: at === 1 ? [y[shown]] : [], y_max: 1, height: 190 });
    Bars.render({ model, el: make(where, "div", { class: "kd-plain" }) });
  }
  function lookAlikes(where) { // above the bars that rise
    const over = make(where, "div", { class: "kd-over", "aria-hidden": true });
    for (const [c, v] of alike()) {
      const small = make(over, "canvas", { style: `left: calc(56px + (100% - 64px) * ${(c + 0.5) / classes} - 11px); bottom: ${32 + 110 * v}px` });
      paintImage(small, bytes(typical[c]), side);
    }
  }
  const report = ({ groups }) => { // test errors in percent, as bars
    if (!groups) return;
    const found = groups.slice(0, 2).map(({ name, errors }) => [name === "alone" ? "student alone" : "distilled", percent(errors, n)]);
    join(rows, "div", found, ([name, value]) => ({ style: `--w: ${Math.min(100, 4 * value)}%; --c: var(--kd-${name === "distilled" ? 1 : 6})`, text: `${name}: ${value.toFixed(1)} % wrong` }));
  };
  return { report };
}
function surest(n, y, p, c) { // the image of class c of which the teacher is surest
  let best = 0, most = -1;
  for (let i = 0; i < n; i += 1) if (y[i] === c && p(i, 4)[c] > most) [best, most] = [i, p(i, 4)[c]];
  return best;
}
function paintImage(canvas, bytes, side) {
  Object.assign(canvas, { width: side, height: side });
  const c = canvas.getContext("2d"), data = c.createImageData(side, side);
  bytes.forEach((ink, i) => data.data.set([...[250, 249, 245].map((paper) => paper - ((paper - 20) * ink) / 255), 255], 4 * i));
  c.putImageData(data, 0, 0);
}
