// A file that `kdlab.widgets.in_page.pack` wrote: a length, a header as JSON, images, labels, the teacher's logits.
function unpack(buffer) {
  const length = new Uint32Array(buffer, 0, 1)[0], header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const { n, n_test, pixels, classes } = header;
  let at = 4 + length;
  const take = (Kind, size) => { const from = at; at += size * Kind.BYTES_PER_ELEMENT; return new Kind(buffer.slice(from, at)); };
  const images = take(Uint8Array, (n + n_test) * pixels), y = take(Uint8Array, n + n_test), t = take(Float32Array, (n + n_test) * classes);
  const part = (from, to) => ({ pixels, images: images.subarray(from * pixels, to * pixels), y: y.subarray(from, to), t: t.subarray(from * classes, to * classes) });
  return { ...header, train: part(0, n), test: part(n, n + n_test) };
}
