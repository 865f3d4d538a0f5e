// The page's program in node: `node engine.js PACK`, with a list of trainings as JSON on stdin; their losses on stdout.
const fs = require("fs"), path = require("path");

const folder = path.join(__dirname, "..", "..", "kdlab", "widgets", "js");
const source = ["pack", "engine", "engine_log", "engine_worker"].map((name) => fs.readFileSync(path.join(folder, `${name}.js`), "utf8")).join("\n");
const names = "Generator, mix, sparse, cases, softmax, TwoTerms, Student, Run, Sha256, digest, followed, unpack, largest";
const engine = new Function("postMessage", `${source}; return { ${names} };`)(() => {});
module.exports = engine;

function trained(pack, { n, missing, knobs, steps, count, ...recipe }) {
  const { cases, Run } = engine, test = cases(pack.test, pack.classes), data = cases(pack.train, pack.classes, n, missing);
  const run = new Run(data, { classes: pack.classes, pixels: pack.pixels, ...recipe }, knobs), start = run.student.layers.map((l) => l.p.map((p) => p.slice()));
  const losses = Array.from({ length: steps }, () => run.next());
  return { losses, errors: run.student.errors(test.x, test.y), start: start.map((p) => p.map((each) => Array.from(each))), digest: engine.digest(data, pack.side, pack.classes) };
}
if (require.main === module) {
  const zipped = fs.readFileSync(process.argv[2]), plain = require("zlib").gunzipSync(zipped), pack = engine.unpack(plain.buffer.slice(plain.byteOffset, plain.byteOffset + plain.length));
  console.log(JSON.stringify(JSON.parse(fs.readFileSync(0, "utf8")).map((each) => trained(pack, each))));
}
