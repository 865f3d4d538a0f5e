// node --test tests/js: the parts of the page's program, each against something that is not it.
const test = require("node:test"), assert = require("node:assert"), crypto = require("crypto");
const { Generator, mix, sparse, softmax, TwoTerms, Student, Run, Sha256, followed, largest } = require("./engine.js");

const near = (a, b, most = 1e-9) => assert.ok(Math.abs(a - b) <= most * Math.max(1, Math.abs(b)), `${a} is not ${b}`);
function digits(n, pixels = 16, classes = 3, seed = 5) { // made up: {x, y, t}
  const random = new Generator(seed), bytes = Uint8Array.from({ length: n * pixels }, () => (random.whole() % 3 ? 0 : random.whole() % 256));
  const y = Uint8Array.from({ length: n }, () => random.whole() % classes), t = random.uniform(n * classes, 4);
  return { x: sparse(bytes, [...Array(n).keys()], pixels), y, t, bytes };
}
const KNOBS = { T: 3, alpha: 0.7, lr: 0.01, smoothing: 0.1 };
const RECIPE = { hidden: [8], classes: 3, pixels: 16, seed: 3, batch_size: 7 };

test("the twister gives the numbers of its authors' reference program", () => {
  const random = new Generator(5489), first = random.whole(); // mt19937ar's own seed; its 10,000th number is in the C++ standard
  assert.equal(first, 3499211612);
  for (let i = 0; i < 9998; i += 1) random.whole();
  assert.equal(random.whole(), 4123659995);
});
test("mix is arithmetic with whole numbers of any size", () => assert.equal(mix(2n ** 40n, 7), ((2n ** 40n) * 1000003n + 7n) % 2n ** 63n));
test("a permutation has each number once", () => assert.deepEqual([...new Generator(1).permutation(50)].sort((a, b) => a - b), [...Array(50).keys()]));
test("the digest is SHA-256, however the bytes come", () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 1000]) {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 7) % 256), own = new Sha256();
    own.add(bytes.subarray(0, length >> 1));
    own.add(bytes.subarray(length >> 1));
    assert.equal(own.hex(), crypto.createHash("sha256").update(bytes).digest("hex"));
  }
});
test("softmax: by hand, and without overflow", () => {
  const p = [0, 0];
  near(softmax([0, Math.log(3)], 0, 2, 1, p), Math.log(4));
  near(p[1], 0.75);
  softmax([1e4, 0], 0, 2, 1, p);
  assert.deepEqual(p, [1, 0]);
});
test("a student that agrees with its teacher costs no soft targets", () => {
  near(new TwoTerms(3).of([1, -2, 0.5], Float32Array.from([1, -2, 0.5]), 0, 0, { T: 5, alpha: 1 }, new Float64Array(3))[1], 0);
});
test("at a high T the gradient is the difference of centered logits, by the number of classes", () => { // Hinton 2015, eq. 4
  const d = new Float64Array(3), s = [1, -2, 0.5], t = Float32Array.from([0, 1, 2]);
  new TwoTerms(3).of(s, t, 0, 0, { T: 1e4, alpha: 1 }, d);
  s.forEach((v, k) => near(d[k], (v + 0.5 / 3 - (t[k] - 1)) / 3, 1e-3));
});
test("the gradient of every weight is the slope of the loss", () => {
  const data = digits(5), student = new Student([16, 6, 3], 2), numbers = [0, 1, 2, 3, 4];
  const loss = () => { let sum = 0; for (const i of numbers) { const [ce, kd] = student.loss.of(student.forward(data.x, i), data.t, 3 * i, data.y[i], KNOBS, new Float64Array(3)); sum += ce + kd; } return sum / 5; };
  let seen = null;
  student.watch = () => { seen = student.layers.map(({ g }) => g.map((part) => part.slice())); };
  student.learn(data, numbers, KNOBS, "watch");
  student.layers.forEach(({ p }, l) => p.forEach((weights, part) => {
    for (let i = 0; i < weights.length; i += 3) {
      const before = weights[i], step = 1 / 512;
      weights[i] = before + step;
      const up = loss(), by = weights[i];
      weights[i] = before - step;
      const slope = (up - loss()) / (by - weights[i]);
      weights[i] = before;
      assert.ok(Math.abs(slope - seen[l][part][i]) < 2e-4, `layer ${l}: ${slope} is not ${seen[l][part][i]}`);
    }
  }));
});
test("a fork goes on as its parent does, and by itself", () => {
  const run = new Run(digits(20), RECIPE, KNOBS);
  for (let i = 0; i < 5; i += 1) run.next();
  const fork = run.fork();
  assert.deepEqual(fork.next(), run.next());
  fork.turn({ T: 9 });
  fork.next();
  run.next();
  assert.notDeepEqual([...fork.student.layers[0].p[0]], [...run.student.layers[0].p[0]]);
  assert.deepEqual(fork.turns, [{ step: 6, T: 9 }]);
  assert.deepEqual(run.turns, []);
});
test("a log is followed to the same weights, its turns at their steps", () => {
  const data = digits(20), run = new Run(data, RECIPE, KNOBS);
  for (let i = 0; i < 12; i += 1) { if (i === 4) run.turn({ T: 1.5, lr: 0.02 }); if (i === 9) run.turn({ alpha: 0 }); run.next(); }
  const settings = { seed: 3, cases: 20 }, again = followed(JSON.parse(JSON.stringify(run.log(settings))), new Run(data, RECIPE, { ...KNOBS, T: 7 }), settings);
  for (let i = 0; i < 12; i += 1) again.next();
  assert.deepEqual(again.student.layers, run.student.layers);
  assert.deepEqual(again.turns, run.turns);
});
test("a log of another run, and what is no log, is refused", () => {
  const run = new Run(digits(20), RECIPE, KNOBS), log = run.log({ seed: 3 });
  assert.throws(() => followed(log, run, { seed: 4 }), /seed: 3 in the log, 4 here/);
  assert.throws(() => followed({ ...log, turns: [{ step: 1, T: -1 }] }, run, { seed: 3 }), /T goes from 0.1 to 100/);
  assert.throws(() => followed({ format: 1 }, run, {}), /no log of a run/);
});
test("a rate that breaks it says so, and the step is not taken", () => {
  const run = new Run(digits(20), RECIPE, { ...KNOBS, lr: 10 });
  run.student.layers[0].p[0].fill(NaN);
  assert.throws(() => run.next(), /no longer a number/);
  assert.equal(run.number, 0);
});
test("no image to learn from is said", () => {
  const { x } = digits(0);
  assert.throws(() => new Run({ x, y: [], t: [] }, RECIPE, KNOBS), /no image is left/);
});
test("the largest logit: the first of equals, and a bias moves it", () => {
  assert.equal(largest([1, 3, 3]), 1);
  assert.equal(largest([1, 3, 3], [5, 0, 0]), 0);
});
