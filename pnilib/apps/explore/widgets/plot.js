// A plotly figure as state: whoever opens a view sees what the others see.

// plotly.js comes with the model and is read by the first view of a page.  As a part of this module it would be too late
// on a slow machine: anywidget gives a model whose module has not loaded within two seconds up for good.
function read(source) {
  if (!globalThis.pnilibPlotly) {
    const module = { exports: {} }; // and no `define`, whatever loader the page has
    new Function("module", "exports", "define", source).call(globalThis, module, module.exports);
    globalThis.pnilibPlotly = module.exports;
  }
  return globalThis.pnilibPlotly;
}

// No button and no link takes a figure, which may hold pictures of confidential parts, to anybody's server.
const NOWHERE = {
  displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
  modeBarButtonsToRemove: ["sendChartToCloud", "sendDataToCloud", "editInChartStudio"],
};

function render({ model, el }) {
  const Plotly = read(model.get("library"));
  const place = document.createElement("div");
  place.style.overflow = "hidden"; // a plot that is too wide does not keep its place wide
  el.appendChild(place);
  let queue = Promise.resolve(); // one change after the other
  const later = (work) => { queue = queue.then(work).catch((fault) => console.error(fault)); };

  function draw() {
    later(async () => {
      const figure = JSON.parse(model.get("figure"));
      if (!figure.data.length) { // nothing to see yet, or any more
        Plotly.purge(place);
        place.dataset.listens = "";
        return;
      }
      if (!figure.layout.width && el.clientWidth) figure.layout.width = el.clientWidth;
      await Plotly.react(place, figure.data, figure.layout, { ...NOWHERE, scrollZoom: figure.layout.dragmode === "pan" });
      if (!place.dataset.listens) {
        place.dataset.listens = "yes";
        place.on("plotly_click", clicked);
      }
      await restyle();
    });
  }

  async function restyle() {
    if (!place.data) return;
    for (const [update, traces] of JSON.parse(model.get("on_top"))) await Plotly.restyle(place, update, traces);
  }

  function clicked(event) {
    const point = event.points[0];
    const n = (model.get("clicked").n || 0) + 1;
    model.set("clicked", { n, trace: point.curveNumber, point: point.pointNumber, x: point.x, y: point.y });
    model.save_changes();
  }

  const restyleLater = () => later(restyle);
  model.on("change:figure", draw);
  model.on("change:on_top", restyleLater);
  draw();
  // A tab that appears, a window that changes.  Not Plotly.Plots.resize: its promise may never be kept, and would hold up
  // every change after it.
  const width = new ResizeObserver(() => later(async () => {
    const own = JSON.parse(model.get("figure")).layout.width, here = el.clientWidth;
    if (place.layout && here && !own && place.layout.width !== here) await Plotly.relayout(place, { width: here });
  }));
  width.observe(el);
  return () => {
    width.disconnect();
    model.off("change:figure", draw);
    model.off("change:on_top", restyleLater);
    Plotly.purge(place);
  };
}
export default { render };
