(() => {
  const svg = document.getElementById("places");
  if (!svg) return;
  const points = JSON.parse(document.getElementById("points").textContent);
  const names = JSON.parse(document.getElementById("names").textContent);
  const said = document.getElementById("said"), whole = svg.viewBox.baseVal;
  const full = { x: whole.x, y: whole.y, w: whole.width, h: whole.height };
  let view = { ...full }, held = null, chosen = null;
  const show = () => {
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
    svg.style.setProperty("--zoom", view.w / full.w);
    svg.classList.toggle("near", view.w < 0.55 * full.w);
  };
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    return [view.x + (event.clientX - box.left) / box.width * view.w, view.y + (event.clientY - box.top) / box.height * view.h];
  };
  const zoom = (factor, [x, y]) => {
    const w = Math.min(full.w, Math.max(full.w / 60, view.w * factor)), real = w / view.w;
    view = { x: x - (x - view.x) * real, y: y - (y - view.y) * real, w, h: view.h * real };
    view.x = Math.min(Math.max(view.x, full.x), full.x + full.w - view.w);
    view.y = Math.min(Math.max(view.y, full.y), full.y + full.h - view.h);
    show();
  };
  const light = (of) => {
    svg.classList.toggle("lit", of !== null);
    svg.querySelectorAll("[data-class]").forEach((part) => part.classList.toggle("on", Number(part.dataset.class) === of));
  };
  const point = (event) => {
    const [x, y] = at(event), reach = 14 * view.w / svg.getBoundingClientRect().width;
    let best = null, least = reach * reach;
    for (const p of points) {
      const far = (p[0] - x) ** 2 + (p[1] - y) ** 2;
      if (far < least) { least = far; best = p; }
    }
    if (!best) { said.hidden = true; light(chosen); return; }
    said.replaceChildren(Object.assign(document.createElement("b"), { textContent: `${best[2]} · ${names[best[2]]}` }),
      Object.assign(document.createElement("span"), { textContent: `row ${best[3]}: ${best[4]}` }));
    const box = svg.parentElement.getBoundingClientRect();
    said.hidden = false;
    said.style.left = `${Math.min(event.clientX - box.left + 14, box.width - said.offsetWidth - 4)}px`;
    said.style.top = `${event.clientY - box.top + 16}px`;
    light(best[2]);
  };
  svg.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 0.8 : 1.25, at(event)); }, { passive: false });
  svg.addEventListener("pointerdown", (event) => { held = { id: event.pointerId, x: event.clientX, y: event.clientY, from: { ...view } }; svg.setPointerCapture(event.pointerId); });
  svg.addEventListener("pointerup", () => { held = null; });
  svg.addEventListener("pointerleave", () => { said.hidden = true; light(chosen); });
  svg.addEventListener("pointermove", (event) => {
    if (!held) { point(event); return; }
    const box = svg.getBoundingClientRect();
    view = { ...view, x: held.from.x - (event.clientX - held.x) / box.width * view.w, y: held.from.y - (event.clientY - held.y) / box.height * view.h };
    said.hidden = true;
    show();
  });
  const middle = () => [view.x + view.w / 2, view.y + view.h / 2];
  svg.addEventListener("dblclick", (event) => zoom(0.5, at(event)));
  svg.addEventListener("keydown", (event) => {
    if (event.key === "+") zoom(0.7, middle()); else if (event.key === "-") zoom(1.4, middle()); else if (event.key === "0") { view = { ...full }; show(); }
  });
  document.getElementById("nearer").addEventListener("click", () => zoom(0.7, middle()));
  document.getElementById("farther").addEventListener("click", () => zoom(1.4, middle()));
  document.getElementById("all").addEventListener("click", () => { view = { ...full }; chosen = null; light(null); show(); });
  document.querySelectorAll("[data-find]").forEach((link) => link.addEventListener("click", () => { chosen = Number(link.dataset.find); light(chosen); }));
})();
