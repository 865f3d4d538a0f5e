// Logs that the page and Python share: what a run is made of, checked before a log is followed.

// The settings of `log`, beside those of the run at hand; returns a run of the same recipe that will turn as it says.
function followed(log, like, here) { // kdlab.live.follow
  const sound = log?.format === 1 && log.settings && log.start && Array.isArray(log.turns) && Number.isInteger(log.steps);
  if (!sound) throw new TypeError("this is no log of a run: Save log makes one here, and Run.log() in Python");
  const names = (knobs) => Object.keys(knobs).sort().join(", ");
  if (names(log.start) !== names(like.start)) throw new TypeError(`the log has the knobs ${names(log.start)}, and this panel ${names(like.start)}`);
  const other = Object.keys({ ...here, ...log.settings }).filter((key) => JSON.stringify(here[key]) !== JSON.stringify(log.settings[key]));
  if (other.length) {
    const told = other.map((key) => `${key}: ${log.settings[key]} in the log, ${here[key]} here`).join("; ");
    throw new TypeError(`this panel is not set up as the run that was logged (${told})`);
  }
  log.turns.forEach(({ step, ...knobs }) => checked(knobs));
  const run = new Run(like.data, like.recipe, log.start);
  run.script = structuredClone(log.turns).sort((a, b) => a.step - b.step);
  return run;
}

// kdlab.data.tensors.digest of (x, y, t): 16 digits made from shapes, types and about a thousand cases.
function digest({ x, y, t }, side, classes) {
  const every = Math.max(1, Math.floor(x.n / 1000)), rows = Array.from({ length: Math.ceil(x.n / every) }, (_, k) => k * every);
  const pixels = new Float32Array(rows.length * side * side);
  rows.forEach((i, k) => { for (let p = x.begin[i]; p < x.begin[i + 1]; p += 1) pixels[k * side * side + x.place[p]] = x.value[p]; });
  const labels = BigInt64Array.from(rows, (i) => BigInt(y[i])), logits = Float32Array.from({ length: rows.length * classes }, (_, k) => t[rows[Math.floor(k / classes)] * classes + (k % classes)]);
  const sizes = [[x.n, 1, side, side], [x.n], [x.n, classes]], kinds = ["float32", "int64", "float32"], whole = new Sha256();
  [pixels, labels, logits].forEach((part, i) => {
    whole.add(new TextEncoder().encode(`(torch.Size([${sizes[i].join(", ")}]), torch.${kinds[i]})`));
    whole.add(new Uint8Array(part.buffer));
  });
  return whole.hex().slice(0, 16);
}

class Sha256 { // FIPS 180-4; crypto.subtle is missing in pages that a classroom serves without https
  constructor() {
    const primes = [];
    for (let n = 2; primes.length < 64; n += 1) if (primes.every((p) => n % p)) primes.push(n);
    const fraction = (v) => ((v - Math.floor(v)) * 2 ** 32) | 0;
    this.state = Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));
    this.constants = Int32Array.from(primes, (p) => fraction(Math.cbrt(p)));
    [this.waiting, this.length, this.words] = [new Uint8Array(0), 0, new Int32Array(64)];
  }
  add(bytes) {
    this.length += bytes.length;
    const all = new Uint8Array(this.waiting.length + bytes.length);
    all.set(this.waiting);
    all.set(bytes, this.waiting.length);
    const whole = all.length - (all.length % 64), view = new DataView(all.buffer);
    for (let at = 0; at < whole; at += 64) this.block(view, at);
    this.waiting = all.slice(whole);
  }
  block(view, at) {
    const { words: w, constants } = this, turned = (v, n) => (v >>> n) | (v << (32 - n));
    for (let i = 0; i < 16; i += 1) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i += 1) {
      const a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (turned(a, 7) ^ turned(a, 18) ^ (a >>> 3)) + (turned(b, 17) ^ turned(b, 19) ^ (b >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = this.state;
    for (let i = 0; i < 64; i += 1) {
      const one = (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i]) | 0;
      const two = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((v, i) => { this.state[i] += v; });
  }
  hex() {
    const bits = this.length * 8, end = new Uint8Array(((this.waiting.length + 72) & ~63) - this.waiting.length);
    end[0] = 0x80;
    new DataView(end.buffer).setUint32(end.length - 8, Math.floor(bits / 2 ** 32));
    new DataView(end.buffer).setUint32(end.length - 4, bits >>> 0);
    this.add(end);
    return Array.from(this.state, (v) => (v >>> 0).toString(16).padStart(8, "0")).join("");
  }
}
