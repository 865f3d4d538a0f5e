// Says to the kernel that a page shows this panel, so that a training that nobody sees does not go on for ever.
function render({ model }) {
  const say = (what) => { try { model.send({ kind: what }); } catch { /* the kernel is gone */ } };
  const here = () => say("here"), gone = () => say("gone");
  here();
  const beat = setInterval(here, 10_000);
  window.addEventListener("pagehide", gone);
  return () => { clearInterval(beat); window.removeEventListener("pagehide", gone); gone(); };
}
export default { render };
