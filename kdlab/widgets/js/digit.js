// Grey images, dark ink on light paper: the one at `index`, or all in `show`.
function render({ model, el }) {
  const at = frame(el);
  at.picture.classList.add("kd-sheets");

  return keepDrawn(model, el, () => {
    const [n, H, W] = model.get("shape"), bytes = model.get("images"), captions = model.get("captions");
    const pixels = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const show = (model.get("show").length ? model.get("show") : [model.get("index")]).filter((i) => i < n);
    while (at.picture.childNodes.length > show.length) at.picture.lastChild.remove();
    const inked = [];
    show.forEach((image, place) => {
      const figure = at.picture.childNodes[place] ?? make(at.picture, "figure");
      const canvas = figure.firstChild ?? make(figure, "canvas"), caption = figure.childNodes[1] ?? make(figure, "figcaption");
      if (canvas.width !== W || canvas.height !== H) { canvas.width = W; canvas.height = H; }
      canvas.style.width = `${model.get("size")}px`;
      const c = canvas.getContext("2d"), data = c.createImageData(W, H);
      for (let p = 0, ink = 0; p < W * H; p += 1) {
        ink = pixels[image * W * H + p] / 255;
        [250, 249, 245].forEach((paper, rgb) => { data.data[4 * p + rgb] = paper - (paper - 20) * ink; });
        data.data[4 * p + 3] = 255;
      }
      c.putImageData(data, 0, 0);
      set(caption, { text: captions[image] ?? "" });
      inked.push(pixels.subarray(image * W * H, (image + 1) * W * H).reduce((a, b) => a + b, 0));
    });
    words(el, at, model, { show, captions: show.map((i) => captions[i] ?? ""), ink: inked,
      said: `${show.length > 1 ? `${show.length} images` : "image"}: ${show.map((i) => captions[i] ?? `number ${i}`).join(", ")}` });
  });
}
export default { render };
