// The worker: trains every run of the panel in turns of some milliseconds, so that a knob is obeyed by the next step.
const TURN = 20; // milliseconds between two looks at the messages
const MARKS = [0, 5, 10, 20, 30, 40, 50, 75]; // steps after which the test errors are counted; then each hundred
const LETTERS = "ABCDEF";

let pack, test, groups, setup, playing = false, look = 0, drawn = null, bias = 0, rate = 0, fresh = [];

// ---- groups: each trains one student a seed; "alone" learns from labels, A, B, … from the teacher as their knobs say

function begin(given, knobs) {
  const { hidden = [30], n = pack.n, missing = [], seeds = [0], batch_size = 64, optimizer = "adam" } = given;
  const data = cases(pack.train, pack.classes, n, missing);
  const group = (name, own) => ({ name, sum: [0, 0, 0], runs: seeds.map((seed) => new Run(data, { hidden, classes: pack.classes, pixels: pack.pixels, seed, batch_size, optimizer }, own)) });
  groups = [group("alone", { ...knobs, alpha: 0 }), group("A", knobs)]; // only now: a slip leaves the old ones
  setup = { hidden, n, missing, seeds, batch_size, optimizer };
  fresh = [];
  groups.forEach(mark);
}
function turn(name, knobs) {
  const { alpha, ...shared } = knobs; // who learns from labels knows no alpha, and shares the rate with A
  groups.find((g) => g.name === name).runs.forEach((run) => run.turn(knobs));
  if (name === "A") groups[0].runs.forEach((run) => run.turn(shared));
}
function add(runs, until) { // another group; returns its name
  const name = LETTERS[groups.length - 1];
  if (!name) throw new RangeError(`${LETTERS.length} runs are as many as one can tell apart: reset`);
  groups.push({ name, sum: [0, 0, 0], runs, until });
  mark(groups.at(-1));
  return name;
}
function fork(from) {
  return add(groups.find((g) => g.name === from).runs.map((run) => run.fork()));
}
function follow(log) { // a log of this page, or of kdlab.live in Python, as another group
  return add([followed(log, groups[1].runs[0], settings(groups[1]))], log.steps);
}
function settings(group) { // as train.Training.settings() in Python says them
  const { recipe, data } = group.runs[0], { classes, side } = pack;
  return { epochs: 100_000, steps: null, batch_size: recipe.batch_size, seed: recipe.seed, cases: data.x.n, data: digest(data, side, classes), precision: null, optimizer: pack.optimizers[recipe.optimizer] };
}

// ---- what is reported

const wrong = ({ runs }) => runs.map((run) => run.student.errors(test.x, test.y, biases()));
const biases = () => (bias && setup.missing.length ? Float64Array.from({ length: pack.classes }, (_, k) => (setup.missing.includes(k) ? bias : 0)) : null);
function mark(group) {
  const errors = wrong(group);
  group.marked = { number: group.runs[0].number, errors };
  fresh.push({ name: group.name, ...group.marked });
}
function logits(student, x, i) {
  const b = biases();
  return Array.from(student.forward(x, i), (v, k) => v + (b ? b[k] : 0));
}
function meanTerms(group) { // of the first seed's steps since the last report; null if there were none
  const [ce, kd, n] = group.sum;
  group.sum = [0, 0, 0];
  return n ? [ce / n, kd / n] : null;
}
function report(more = {}) {
  const marks = fresh, shown = {}, drawing = {}, state = groups.map((g) => ({ name: g.name, number: g.runs[0].number, used: g.runs[0].used, terms: meanTerms(g), turns: g.runs[0].turns.length, errors: g.marked.errors, until: g.until, diverged: Boolean(g.diverged) }));
  for (const { name, runs } of groups) {
    shown[name] = logits(runs[0].student, test.x, look);
    if (drawn) drawing[name] = logits(runs[0].student, drawn, 0);
  }
  fresh = [];
  postMessage({ kind: "state", groups: state, marks, shown, drawing: drawn ? drawing : null, look, playing, rate, n: groups[1].runs[0].data.x.n, ...more });
}

// ---- training in turns

function step() { // one of every group that goes on, the least advanced first; false where all have ended
  const going = groups.filter((g) => g.until === undefined || g.runs[0].number < g.until);
  if (!going.length) return false;
  const least = Math.min(...going.map((g) => g.runs[0].number));
  for (const group of going.filter((g) => g.runs[0].number === least)) {
    const [ce, kd] = group.runs.map((run) => run.next())[0];
    group.sum = [group.sum[0] + ce, group.sum[1] + kd, group.sum[2] + 1];
    if (group.turned !== group.runs[0].turns.length) [group.first, group.turned] = [ce + kd, group.runs[0].turns.length]; // T² scales the loss
    group.diverged = ce + kd > 10 * group.first || (group.diverged && ce + kd > group.first); // until it is mended
    const number = least + 1;
    if (MARKS.includes(number) || number % 100 === 0 || number === group.until) mark(group);
  }
  return true;
}
function play() {
  if (!playing) return;
  const from = performance.now(), taken = images();
  try {
    while (performance.now() - from < TURN && playing) playing = step();
  } catch (error) { stop(error); return; }
  rate = 0.9 * rate + 0.1 * 1000 * (images() - taken) / (performance.now() - from);
  report();
  setTimeout(play, 0);
}
const images = () => groups.reduce((sum, { runs }) => sum + runs.reduce((s, run) => s + run.number * run.recipe.batch_size, 0), 0);
function stop(error) {
  playing = false;
  const cause = error.message.includes("no longer a number") ? ": the learning rate is too high. Lower it and press Reset" : "";
  report({ problem: `${error.message}${cause}` });
}
function bench({ steps, knobs, ...recipe }) { // steps of one student and nothing else: what a step costs
  const run = new Run(cases(pack.train, pack.classes, recipe.n, recipe.missing), { classes: pack.classes, pixels: pack.pixels, ...recipe }, knobs), from = performance.now();
  for (let i = 0; i < steps; i += 1) run.next();
  return { seconds: (performance.now() - from) / 1000 };
}

const obey = {
  pack: ({ pack: buffer, begin: given, knobs }) => { pack = unpack(buffer); test = cases(pack.test, pack.classes); begin(given, knobs); report({ ready: true }); },
  begin: ({ begin: given, knobs }) => { playing = false; begin(given, knobs); report({ begun: true }); },
  turn: ({ turn: knobs, of }) => { turn(of, knobs); if (!playing) report(); },
  play: ({ play: on }) => { const was = playing; playing = on; if (on && !was) { play(); return; } groups.filter((g) => g.marked.number !== g.runs[0].number).forEach(mark); report(); },
  step: () => { playing = false; step(); groups.forEach(mark); report(); },
  open: ({ open: { steps, fork: knobs } }) => { // so many steps, a fork with its knobs turned, and as many steps again
    const take = () => { for (let i = 0; i < steps; i += 1) step(); };
    take();
    const forked = fork("A");
    turn(forked, knobs);
    take();
    groups.forEach(mark);
    report({ forked });
  },
  fork: ({ fork: from }) => { const forked = fork(from); report({ forked }); },
  follow: ({ follow: log }) => { const forked = follow(log); report({ forked }); },
  look: ({ look: i }) => { look = i; report(); },
  bias: ({ bias: value }) => { bias = value; groups.forEach((g) => { g.marked.errors = wrong(g); }); report(); },
  draw: ({ draw: bytes }) => { drawn = bytes ? sparse(bytes, [0], pack.pixels) : null; report(); },
  log: ({ log: name }) => { const group = groups.find((g) => g.name === name); postMessage({ kind: "log", log: group.runs[0].log(settings(group)) }); },
  bench: ({ bench: what }) => postMessage({ kind: "bench", ...bench(what) }),
};
if (typeof postMessage === "function" && typeof document === "undefined") onmessage = ({ data }) => {
  try { for (const [name, act] of Object.entries(obey)) if (name in data) { act(data); break; } } catch (error) { if (groups) stop(error); else postMessage({ kind: "state", problem: error.message }); }
};
