// Panels show what they show without a kernel, and follow the theme's light and dark, as does the student of the home
// page in its frame, which is as tall as what it holds. The sidebar begins at the page that is shown.
document.body.dataset.kdExported = "true";
const frame = document.querySelector("iframe.student"), system = matchMedia("(prefers-color-scheme: dark)");
function theme() {
  const chosen = document.body.dataset.theme, dark = chosen === "dark" || (chosen !== "light" && system.matches);
  document.body.dataset.jpThemeLight = String(!dark);
  frame?.contentWindow.postMessage({ theme: dark ? "dark" : "light" }, "*");
}
new MutationObserver(theme).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
system.addEventListener("change", theme);
addEventListener("message", (event) => {
  if (!frame || event.source !== frame.contentWindow || !(event.data?.height > 0)) return;
  frame.style.height = `${Math.ceil(event.data.height)}px`;
  theme();
});
theme();
document.querySelector(".sidebar-tree .current-page > a.reference")?.scrollIntoView({ block: "nearest" });
