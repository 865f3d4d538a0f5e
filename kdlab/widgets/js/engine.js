// Distillation in plain JavaScript: the student, the loss and the training loop of the page. No document, no network.
// From the same start, data and seed it takes the steps of kdlab.train.Training in Python, to float32's rounding.

// ---- torch's random numbers: the Mersenne twister, as torch.manual_seed starts it

class Generator {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = Number(BigInt(seed) & 0xffffffffn);
    for (let i = 1; i < 624; i += 1) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
    this.at = 624;
  }
  twist() {
    const s = this.state;
    for (let i = 0; i < 624; i += 1) {
      const bits = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }
  whole() { // 32 random bits
    if (this.at === 624) this.twist();
    let bits = this.state[this.at];
    this.at += 1;
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }
  uniform(n, bound) { // tensor.uniform_(-bound, bound)
    const low = Math.fround(-bound), width = Math.fround(Math.fround(bound) - low);
    return Float32Array.from({ length: n }, () => ((this.whole() & 0xffffff) / 16777216) * width + low);
  }
  permutation(n) { // torch.randperm(n)
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = 0; i < n - 1; i += 1) {
      const j = i + (this.whole() % (n - i));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
function mix(...numbers) { // kdlab.randomness.mix
  return numbers.reduce((mixed, number) => (mixed * 1000003n + BigInt(number)) % (1n << 63n), 0n);
}

// ---- data: images as the places and values of what is not 0, which four pixels in five are

function sparse(bytes, numbers, pixels) { // bytes: (images, pixels), 0 to 255; numbers: which of the images
  let total = 0;
  for (const i of numbers) for (let p = i * pixels; p < (i + 1) * pixels; p += 1) if (bytes[p]) total += 1;
  const x = { n: numbers.length, begin: new Uint32Array(numbers.length + 1), place: new Uint16Array(total), value: new Float32Array(total) };
  let k = 0;
  numbers.forEach((i, row) => {
    for (let p = 0; p < pixels; p += 1) {
      const ink = bytes[i * pixels + p];
      if (ink) { x.place[k] = p; x.value[k] = ink / 255; k += 1; }
    }
    x.begin[row + 1] = k;
  });
  return x;
}
// The first n cases of a pack that are of no missing class, as {x, y, t}: images, labels, teacher's logits.
function cases(part, classes, n = part.y.length, missing = []) {
  const numbers = [];
  for (let i = 0; i < Math.min(n, part.y.length); i += 1) if (!missing.includes(part.y[i])) numbers.push(i);
  const t = new Float32Array(numbers.length * classes);
  numbers.forEach((i, row) => t.set(part.t.subarray(i * classes, (i + 1) * classes), row * classes));
  return { x: sparse(part.images, numbers, part.pixels), y: Uint8Array.from(numbers, (i) => part.y[i]), t };
}

// ---- the loss

// Write softmax(z / T) of `n` logits from z[from] on into `p`; return the logarithm of its denominator.
function softmax(z, from, n, T, p) {
  let top = -Infinity, sum = 0;
  for (let k = 0; k < n; k += 1) top = Math.max(top, z[from + k] / T);
  for (let k = 0; k < n; k += 1) { p[k] = Math.exp(z[from + k] / T - top); sum += p[k]; }
  for (let k = 0; k < n; k += 1) p[k] /= sum;
  return top + Math.log(sum);
}

// kdlab.losses.two_terms of one case: (1 - alpha) · cross-entropy with the smoothed label + alpha · T² · KL(teacher ‖ student).
// s: student's logits; t: teacher's, from t[at] on. Writes the gradient with respect to s into d; returns [ce, kd].
class TwoTerms {
  constructor(classes) {
    this.classes = classes;
    [this.p, this.q, this.r] = [0, 0, 0].map(() => new Float64Array(classes));
  }
  of(s, t, at, y, { T, alpha, smoothing = 0 }, d) {
    const { classes, p, q, r } = this;
    const logR = softmax(s, 0, classes, 1, r), logQ = softmax(s, 0, classes, T, q), logP = softmax(t, at, classes, T, p);
    let ce = 0, kd = 0;
    for (let k = 0; k < classes; k += 1) {
      const target = smoothing / classes + (k === y ? 1 - smoothing : 0);
      if (target) ce -= target * (s[k] - logR);
      if (p[k] > 0) kd += p[k] * (t[at + k] / T - logP - (s[k] / T - logQ));
      d[k] = (1 - alpha) * (r[k] - target) + alpha * T * (q[k] - p[k]);
    }
    return [(1 - alpha) * ce, alpha * T * T * kd];
  }
}

// ---- the student: rectified linear layers

class Student {
  constructor(sizes, seed) { // kdlab.models.mlp(hidden, seed=seed), whose layers start as nn.Linear does
    const random = new Generator(mix(seed));
    this.sizes = sizes;
    this.layers = sizes.slice(1).map((nOut, l) => {
      const nIn = sizes[l], w = new Float64Array(nIn * nOut); // the weights of one input lie together
      const drawn = random.uniform(nIn * nOut, Math.sqrt(3) * (Math.sqrt(2 / 6) / Math.sqrt(nIn)));
      for (let o = 0; o < nOut; o += 1) for (let i = 0; i < nIn; i += 1) w[i * nOut + o] = drawn[o * nIn + i];
      const p = [w, Float64Array.from(random.uniform(nOut, 1 / Math.sqrt(nIn)))];
      const like = () => p.map((each) => new Float64Array(each.length));
      return { nOut, p, g: like(), m: like(), v: like(), out: new Float64Array(nOut), d: new Float64Array(nOut) };
    });
    this.loss = new TwoTerms(sizes.at(-1));
    this.steps = 0; // taken
  }

  forward(x, i) { // → the logits of image i; the same array at every call
    let below = null;
    for (const layer of this.layers) {
      const { out, nOut, p: [w, b] } = layer;
      for (let o = 0; o < nOut; o += 1) out[o] = b[o];
      if (below) addDense(out, w, nOut, below);
      else addSparse(out, w, nOut, x, x.begin[i], x.begin[i + 1]);
      if (layer !== this.layers.at(-1)) for (let o = 0; o < nOut; o += 1) if (out[o] < 0) out[o] = 0; // NaN stays
      below = out;
    }
    return below;
  }

  backward(x, i) { // from the gradient d of the last layer's outputs; adds to every g
    for (let l = this.layers.length - 1; l >= 0; l -= 1) {
      const { d, nOut, p: [w], g: [gw, gb] } = this.layers[l], below = this.layers[l - 1];
      for (let o = 0; o < nOut; o += 1) gb[o] += d[o];
      if (below) backDense(gw, w, d, nOut, below.out, below.d);
      else backSparse(gw, d, nOut, x, x.begin[i], x.begin[i + 1]);
    }
  }

  // Learn from one minibatch; returns its mean terms [ce, kd].
  learn({ x, y, t }, numbers, knobs, optimizer = "adam") {
    const last = this.layers.at(-1), n = numbers.length, classes = last.nOut;
    let ce = 0, kd = 0;
    for (const i of numbers) {
      const terms = this.loss.of(this.forward(x, i), t, classes * i, y[i], knobs, last.d);
      ce += terms[0];
      kd += terms[1];
      for (let k = 0; k < classes; k += 1) last.d[k] /= n;
      this.backward(x, i);
    }
    if (!Number.isFinite(ce + kd)) throw new RangeError("the loss is no longer a number");
    this.steps += 1;
    this[optimizer](knobs.lr);
    return [ce / n, kd / n];
  }
  adam(lr, beta1 = 0.9, beta2 = 0.999) { // torch.optim.Adam
    const size = lr / (1 - beta1 ** this.steps), root = Math.sqrt(1 - beta2 ** this.steps);
    for (const { p, g, m, v } of this.layers) p.forEach((_, i) => adam(p[i], g[i], m[i], v[i], size, root, beta1, beta2));
  }
  sgd(lr, momentum = 0.9) { // torch.optim.SGD(momentum=0.9)
    for (const { p, g, m } of this.layers) p.forEach((_, i) => sgd(p[i], g[i], m[i], lr, momentum));
  }

  errors(x, y, bias = null) { // how many of the images it takes for another class; bias: added to the logits
    let wrong = 0;
    for (let i = 0; i < x.n; i += 1) if (largest(this.forward(x, i), bias) !== y[i]) wrong += 1;
    return wrong;
  }
  copy() {
    const other = Object.assign(Object.create(Student.prototype), this);
    const again = (arrays) => arrays.map((array) => array.slice());
    other.layers = this.layers.map((layer) => ({ ...layer, p: again(layer.p), g: again(layer.g), m: again(layer.m), v: again(layer.v), out: layer.out.slice(), d: layer.d.slice() }));
    return other;
  }
}
function largest(logits, bias) { // the first of the largest, as torch.argmax says
  let best = 0;
  const of = (k) => logits[k] + (bias ? bias[k] : 0);
  for (let k = 1; k < logits.length; k += 1) if (of(k) > of(best)) best = k;
  return best;
}

// What takes the time. Each is a loop over the outputs of some inputs, and is compiled well because it does nothing else;
// four pixels at a time, since then an output is read and written once for the four.
function addSparse(out, w, nOut, { place, value }, begin, end) {
  let k = begin;
  for (; k + 3 < end; k += 4) {
    const a = value[k], b = value[k + 1], c = value[k + 2], d = value[k + 3];
    const rowA = place[k] * nOut, rowB = place[k + 1] * nOut, rowC = place[k + 2] * nOut, rowD = place[k + 3] * nOut;
    for (let o = 0; o < nOut; o += 1) out[o] = out[o] + a * w[rowA + o] + b * w[rowB + o] + c * w[rowC + o] + d * w[rowD + o];
  }
  for (; k < end; k += 1) {
    const v = value[k], row = place[k] * nOut;
    for (let o = 0; o < nOut; o += 1) out[o] += v * w[row + o];
  }
}
function addDense(out, w, nOut, below) {
  for (let i = 0, row = 0; i < below.length; i += 1, row += nOut) {
    const v = below[i];
    if (v !== 0) for (let o = 0; o < nOut; o += 1) out[o] += v * w[row + o];
  }
}
function backSparse(gw, d, nOut, { place, value }, begin, end) {
  let k = begin;
  for (; k + 3 < end; k += 4) {
    const a = value[k], b = value[k + 1], c = value[k + 2], e = value[k + 3];
    const rowA = place[k] * nOut, rowB = place[k + 1] * nOut, rowC = place[k + 2] * nOut, rowE = place[k + 3] * nOut;
    for (let o = 0; o < nOut; o += 1) {
      const slope = d[o];
      gw[rowA + o] += a * slope;
      gw[rowB + o] += b * slope;
      gw[rowC + o] += c * slope;
      gw[rowE + o] += e * slope;
    }
  }
  for (; k < end; k += 1) {
    const v = value[k], row = place[k] * nOut;
    for (let o = 0; o < nOut; o += 1) gw[row + o] += v * d[o];
  }
}
function backDense(gw, w, d, nOut, below, dBelow) {
  for (let i = 0, row = 0; i < below.length; i += 1, row += nOut) {
    const v = below[i];
    let sum = 0;
    if (v > 0) for (let o = 0; o < nOut; o += 1) { gw[row + o] += v * d[o]; sum += w[row + o] * d[o]; }
    dBelow[i] = sum; // 0 where the unit was off
  }
}
function adam(p, g, m, v, size, root, beta1, beta2) {
  for (let i = 0; i < p.length; i += 1) {
    m[i] = beta1 * m[i] + (1 - beta1) * g[i];
    v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
    p[i] -= size * m[i] / (Math.sqrt(v[i]) / root + 1e-8);
    g[i] = 0;
  }
}
function sgd(p, g, m, lr, momentum) {
  for (let i = 0; i < p.length; i += 1) {
    m[i] = momentum * m[i] + g[i];
    p[i] -= lr * m[i];
    g[i] = 0;
  }
}

// ---- a training whose knobs are turned while it runs: kdlab.live.Run

const RANGES = { T: [0.1, 100], alpha: [0, 1], lr: [1e-5, 10], smoothing: [0, 0.5] };

class Run {
  // data: of `cases`; recipe: {hidden, classes, pixels, seed, batch_size, optimizer}; knobs: {T, alpha, lr, smoothing}
  constructor(data, recipe, knobs) {
    if (!data.x.n) throw new RangeError("no image is left to learn from: all digits are missing; uncheck at least one");
    this.data = data;
    this.recipe = { batch_size: 64, optimizer: "adam", ...recipe };
    this.student = new Student([recipe.pixels, ...recipe.hidden, recipe.classes], recipe.seed);
    this.start = checked(knobs);
    this.wanted = { ...this.start }; // by the next step
    this.used = { ...this.start };
    this.turns = []; // {step: the first that used them, name: value, …}
    this.script = []; // turns to come by themselves, of a log that is followed
    this.number = 0; // of the step to come
    this.epoch = -1;
  }
  turn(knobs) { Object.assign(this.wanted, checked(knobs)); }

  next() { // one step; returns its terms [ce, kd]
    while (this.script.length && this.script[0].step <= this.number) { const { step, ...knobs } = this.script.shift(); this.turn(knobs); }
    const changed = Object.fromEntries(Object.entries(this.wanted).filter(([name, value]) => this.used[name] !== value));
    if (Object.keys(changed).length) this.turns.push({ step: this.number, ...changed });
    Object.assign(this.used, changed);
    const { batch_size: size, seed, optimizer } = this.recipe, inEpoch = Math.ceil(this.data.x.n / size);
    const epoch = Math.floor(this.number / inEpoch), from = (this.number % inEpoch) * size;
    if (epoch !== this.epoch) this.order = new Generator(mix(seed, epoch)).permutation(this.data.x.n);
    this.epoch = epoch;
    const terms = this.student.learn(this.data, this.order.subarray(from, from + size), this.used, optimizer);
    this.number += 1;
    return terms;
  }
  fork() {
    const other = Object.assign(Object.create(Run.prototype), this);
    return Object.assign(other, { student: this.student.copy(), wanted: { ...this.wanted }, used: { ...this.used }, turns: structuredClone(this.turns), script: structuredClone(this.script) });
  }
  log(settings) { // what kdlab.live.replay reads
    return { format: 1, settings, start: this.start, turns: this.turns.filter(({ step }) => step < this.number), steps: this.number };
  }
}
function checked(knobs) {
  for (const [name, value] of Object.entries(knobs)) {
    const [low, high] = RANGES[name] ?? [];
    if (low === undefined) throw new RangeError(`there is no knob ${name}; there are ${Object.keys(RANGES).join(", ")}`);
    if (!(value >= low && value <= high)) throw new RangeError(`the knob ${name} goes from ${low} to ${high}, got ${value}`);
  }
  return { ...knobs };
}
