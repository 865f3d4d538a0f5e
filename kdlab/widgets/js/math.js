// The closed forms behind the panels: plain arrays in, plain numbers out, no drawing. Logits may reach ±1e4, T 0.01.
const add = (v) => v.reduce((a, b) => a + b, 0);
const norm = (v) => Math.sqrt(add(v.map((a) => a * a)));
const centred = (v) => { const mean = add(v) / v.length; return v.map((a) => a - mean); };
const logGrid = (from, to, n) => Array.from({ length: n }, (_, i) => from * (to / from) ** (i / (n - 1)));

function logSoftmax(logits, T) {
  const z = logits.map((l) => l / T), top = Math.max(...z), rest = Math.log(add(z.map((v) => Math.exp(v - top))));
  return z.map((v) => v - top - rest); // finite where the probability underflows: 0 · log 0 = 0
}
const softmax = (logits, T) => logSoftmax(logits, T).map(Math.exp);
const kl = (logP, logQ) => Math.max(0, add(logP.map((lp, i) => Math.exp(lp) && Math.exp(lp) * (lp - logQ[i])))); // nats

// softmax(logits / T); without a label, the likeliest class counts as the right one
function softened(logits, T, label = logits.indexOf(Math.max(...logits))) {
  const logP = logSoftmax(logits, T), p = logP.map(Math.exp);
  return {
    series: [{ name: "soft target", values: p }],
    numbers: [
      { label: "entropy", value: add(p.map((a, i) => -a * logP[i])) / Math.log(2), unit: "bits" },
      { label: "wrong classes hold", value: 100 * add(p.filter((_, i) => i !== label)), unit: "%" },
    ],
  };
}

// alpha · [T²] KL(p_T || q_T) + (1 − alpha) · cross-entropy at T = 1, and what each asks of the student's logits
function twoTerms(student, teacher, label, T, alpha, tSquared) {
  const logQ = logSoftmax(student, T), logP = logSoftmax(teacher, T), logQ1 = logSoftmax(student, 1);
  const scale = tSquared ? T * T : 1;
  const soft = logQ.map((lq, i) => alpha * scale * (Math.exp(lq) - Math.exp(logP[i])) / T);
  const hard = logQ1.map((lq, i) => (1 - alpha) * (Math.exp(lq) - (i === label ? 1 : 0)));
  const terms = [alpha * scale * kl(logP, logQ), -(1 - alpha) * logQ1[label]];
  return {
    series: [{ name: "soft targets", values: soft }, { name: "label", values: hard },
      { name: "both", values: soft.map((g, i) => g + hard[i]) }],
    numbers: [{ label: "soft targets", value: terms[0], unit: "nats" }, { label: "label", value: terms[1], unit: "nats" },
      { label: "loss", value: terms[0] + terms[1], unit: "nats" }],
  };
}

// N times the gradient of T² KL, beside the difference of centred logits that it tends to as T grows (N classes)
function hotLimit(student, teacher, T) {
  const p = softmax(teacher, T), q = softmax(student, T), s = centred(student), t = centred(teacher);
  const gradient = q.map((a, i) => T * (a - p[i]) * q.length), limit = s.map((a, i) => a - t[i]);
  return {
    series: [{ name: "N × gradient at T", values: gradient }, { name: "its limit: student − teacher, centred", values: limit }],
    numbers: [{ label: "largest gap", value: Math.max(...limit.map((a, i) => Math.abs(a - gradient[i]))), unit: "" }],
  };
}

// size of the soft targets' gradient, without T²: the mean over images of ‖(q − p) / T‖
function gradientSize(students, teachers, T) {
  const one = (s, i) => { const p = softmax(teachers[i], T); return norm(softmax(s, T).map((q, c) => (q - p[c]) / T)); };
  return add(students.map(one)) / students.length;
}

// arithmetic mean of the members' soft targets against their normalised geometric mean
function ensemble(members, T) {
  const N = members.length, rows = members.map((m) => softmax(m, T));
  const arithmetic = rows[0].map((_, c) => add(rows.map((r) => r[c])) / N);
  const logG = logSoftmax(rows[0].map((_, c) => add(members.map((m) => m[c])) / N), T), geometric = logG.map(Math.exp);
  const apart = add(arithmetic.map((a, c) => Math.abs(a - geometric[c]))) / 2;
  return {
    series: [{ name: "arithmetic mean", values: arithmetic }, { name: "geometric mean", values: geometric }],
    numbers: [{ label: "mass that differs", value: 100 * apart, unit: "%" },
      { label: "KL(arithmetic || geometric)", value: kl(arithmetic.map(Math.log), logG), unit: "nats" }],
  };
}

// every net's soft target of one image, and the class it holds likeliest; nets that were not asked yet show no bars
function nets(logits, index, T, labels) {
  const asked = Object.entries(logits).map(([name, rows]) => ({ name, row: rows[index] }));
  const series = asked.map(({ name, row }) => ({ name, values: row ? softmax(row, T) : labels.map(() => 0) }));
  const numbers = series.filter((_, i) => asked[i].row).map(({ name, values }) => {
    const most = Math.max(...values), c = values.indexOf(most);
    return { label: `${name}: ${labels[c] ?? c}`, value: 100 * most, unit: "%" };
  });
  return { series, numbers };
}

// row i: the mean soft target of the images labelled i, in percent
function similarity(logits, labels, T) {
  const N = logits[0].length, total = Array.from({ length: N }, () => new Array(N).fill(0)), count = new Array(N).fill(0);
  logits.forEach((row, n) => {
    const into = total[labels[n]];
    count[labels[n]] += 1;
    softmax(row, T).forEach((p, c) => { into[c] += p; });
  });
  return total.map((row, i) => row.map((v) => (100 * v) / Math.max(count[i], 1)));
}

// how often a case of class i (row) is called j (column) when `bias` is added to the logits of `classes`
function confusion(logits, labels, classes, bias) {
  const N = logits[0].length, shift = new Array(N).fill(0), matrix = shift.map(() => new Array(N).fill(0));
  classes.forEach((c) => { shift[c] = bias; });
  logits.forEach((row, n) => {
    let best = 0;
    for (let c = 1; c < N; c += 1) if (row[c] + shift[c] > row[best] + shift[best]) best = c;
    matrix[labels[n]][best] += 1;
  });
  return matrix;
}

// each word's probability at T in a row of logits: the sum over its states; groups: the word of each state
function ofWords(row, groups, T) {
  const sums = new Array(Math.max(...groups) + 1).fill(0);
  softmax(row, T).forEach((p, state) => { sums[groups[state]] += p; });
  return sums;
}
const ofNets = ({ groups, truth, ...nets }) => Object.entries(nets); // an input of rows, a row a frame, is a net
// eq. 5 of the paper for one image: the generalist's p, the awake specialists' own, and q after some steps from p.
// plain: gradient descent on z at rate 4; else z = log(target), where the gradient would vanish (kdlab/specialists/equation5.py)
function eq5(generalist, specialists, clusters, step, plain) {
  const p = softmax(generalist, 1), top = p.indexOf(Math.max(...p));
  const awake = clusters.map((_, m) => m).filter((m) => clusters[m].includes(top));
  const nets = awake.map((m) => {
    const said = softmax(specialists[m], 1), place = new Map(clusters[m].map((c, i) => [c, i]));
    return { m, place, dust: said[said.length - 1], p: p.map((_, c) => (place.has(c) ? said[place.get(c)] : 0)) };
  });
  const elsewhere = (net, q) => add(q.filter((_, c) => !net.place.has(c)));
  const target = (q) => {
    const shares = nets.map((net) => net.dust / Math.max(elsewhere(net, q), 1e-300));
    return q.map((v, c) => (add(nets.map((net, i) => (net.place.has(c) ? net.p[c] : v * shares[i]))) + p[c]) / (1 + nets.length));
  };
  let z = p.map((v) => Math.log(v + 1e-12 / p.length));
  for (let k = 0; k < step; k += 1) {
    const q = softmax(z, 1), t = target(q);
    z = plain ? z.map((v, c) => v - 4 * (q[c] - t[c])) : t.map(Math.log);
  }
  const q = softmax(z, 1), cost = (a, b) => (a > 0 ? a * Math.log(a / b) : 0);
  const value = add(p.map((v, c) => cost(v, q[c]))) + add(nets.map((net) => cost(net.dust, elsewhere(net, q))
    + add(net.p.map((v, c) => (net.place.has(c) ? cost(v, q[c]) : 0)))));
  return { p, q, nets, value };
}

const kept = new WeakMap(); // a curve's grid is computed once for each inputs and key, not at each move of T
function once(inputs, key, compute) {
  if (kept.get(inputs)?.key !== key) kept.set(inputs, { key, value: compute() });
  return kept.get(inputs).value;
}

// name → (inputs, knobs) → what a piece draws; a curve's `at` are its values at the knob's T
const recipes = {
  as_given: (d) => ({ series: Object.entries(d).map(([name, values]) => ({ name, values })), numbers: [] }),
  softened: (d, k) => softened(d.logits[k.index], k.T, d.labels?.[k.index]),
  two_terms: (d, k) => twoTerms(d.student[k.index], d.teacher[k.index], d.labels[k.index], k.T, k.alpha, k.t_squared),
  hot_limit: (d, k) => hotLimit(d.student[k.index], d.teacher[k.index], k.T),
  ensemble: (d, k) => ensemble(d.members, k.T),
  nets: (d, k) => nets(d, k.index, k.T, k.labels), // name → logits, a row an image
  eq5(d, k) { // the true class and those that any net holds likely, the generalist's likeliest first; the rest together
    const said = d.specialists.map((rows) => rows[k.index]), name = (c) => k.labels[c] ?? c;
    const { p, q, nets, value } = eq5(d.logits[k.index], said, d.clusters, k.step, k.plain);
    const truth = d.labels?.[k.index], weight = p.map((v, c) => (c === truth ? 2 : Math.max(v, ...nets.map((net) => net.p[c]))));
    const order = (by) => p.map((_, c) => c).sort((a, b) => by[b] - by[a]), likely = order(weight).slice(0, 9);
    const shown = order(p).filter((c) => likely.includes(c));
    const some = (v) => { const own = shown.map((c) => v[c]); return [...own, Math.max(0, 1 - add(own))]; };
    const best = (v) => v.indexOf(Math.max(...v)), surest = (n, v) => ({ label: `${n} ${name(best(v))}`, value: 100 * v[best(v)], unit: "%" });
    return {
      series: [{ name: "generalist", values: some(p) }, { name: "q", values: some(q) },
        ...nets.map((net) => ({ name: `specialist ${net.m}`, values: some(net.p) }))],
      labels: [...shown.map(name), "others"], mark: truth === undefined ? -1 : shown.indexOf(truth),
      numbers: [surest("generalist:", p), { label: "doubt", value: -add(p.map((v) => (v > 0 ? v * Math.log2(v) : 0))), unit: "bits" },
        surest("q:", q), { label: "eq. 5", value, unit: "nats" }],
    };
  },
  similarity: (d, k) => ({ matrix: similarity(d.logits, d.labels, k.T), unit: "%", numbers: [] }),
  confusion(d, k) {
    const matrix = confusion(d.logits, d.labels, d.classes, k.bias), sum = (row) => row.reduce((a, b) => a + b, 0);
    const errors = sum(matrix.map((row, i) => sum(row) - row[i]));
    const numbers = [{ label: "errors", value: errors, unit: `of ${d.logits.length.toLocaleString("en")}` }];
    d.classes.forEach((c) => numbers.push({ label: `${k.labels[c] ?? c}s known`, unit: "%",
      value: (100 * matrix[c][c]) / Math.max(1, sum(matrix[c])) }));
    return { matrix, numbers };
  },
  words: (d, k) => ({
    series: ofNets(d).map(([name, rows]) => ({ name, values: ofWords(rows[k.index], d.groups, k.T) })), numbers: [] }),
  heard(d, k) { // along all frames: the likeliest word of each net, and its probability
    const lanes = ofNets(d).map(([name, rows]) => {
      const each = rows.map((row) => ofWords(row, d.groups, k.T)), p = each.map((row) => Math.max(...row));
      return { name, p, word: each.map((row, t) => row.indexOf(p[t])) };
    });
    const numbers = lanes.map((l) => ({ label: `${l.name}: frames whose word is right`, unit: "%",
      value: (100 * l.word.filter((w, t) => w === d.truth[t]).length) / d.truth.length }));
    return { lanes, numbers };
  },
  paths(d, k) {
    const row = d.logits[k.index], x = logGrid(0.1, 100, 121), now = softmax(row, k.T);
    const rows = once(d, k.index, () => x.map((T) => softmax(row, T)));
    const names = d.classes.map((c) => `p(${k.labels[c] ?? c})`);
    const series = d.classes.map((c, i) => ({ name: names[i], values: rows.map((p) => p[c]), at: now[c] }));
    return { x, series, numbers: d.classes.map((c, i) => ({ label: names[i], value: now[c], unit: "" })) };
  },
  runs({ x, stop, ...curves }, k) { // name → values at x, a row a run; stop: where on x each run is to be read
    const series = Object.entries(curves).map(([name, rows]) => ({ name, values: rows[k.index] }));
    const kinds = series.map((s) => s.name.split(",")[0]), firsts = series.filter((_, i) => kinds.indexOf(kinds[i]) === i);
    const numbers = firsts.map((s) => ({ label: `${s.name}, at the end`, value: s.values.at(-1), unit: "" }));
    return { x, series, numbers, cursor: stop?.[k.index] };
  },
  rows: (d, k) => ({ ...recipes.runs(d, k), numbers: [] }), // where x is no time, and has no end to speak of
  front({ costs, score }, k) { // which points no other beats at no higher cost, the cheapest first
    const cost = costs?.[k.index] ?? [], order = cost.map((_, i) => i).sort((a, b) => cost[a] - cost[b] || score[b] - score[a]);
    let most = -Infinity;
    return { front: order.filter((i) => score[i] > most && ((most = score[i]), true)), numbers: [] };
  },
  gradient_size(d, k) {
    const x = logGrid(0.1, 100, 121), bare = once(d, "", () => x.map((T) => gradientSize(d.student, d.teacher, T)));
    const now = gradientSize(d.student, d.teacher, k.T);
    const series = [{ name: "with T²", values: bare.map((g, i) => g * x[i] ** 2), at: now * k.T ** 2 },
      { name: "without", values: bare, at: now }];
    return { x, series, numbers: series.map((s) => ({ label: s.name, value: s.at, unit: "" })) };
  },
};
