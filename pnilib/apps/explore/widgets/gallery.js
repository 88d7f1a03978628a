// A page of thumbnails.  Text goes in as text, never as HTML: file names may hold anything.
function render({ model, el }) {
  const grid = document.createElement("div");
  grid.className = "pni-gallery";
  grid.setAttribute("role", "listbox");
  grid.tabIndex = 0;
  el.appendChild(grid);

  function draw() {
    grid.replaceChildren();
    const pictures = model.get("pictures");
    for (const item of model.get("items")) {
      const card = document.createElement("button");
      card.className = "pni-card";
      card.dataset.key = item.key;
      card.dataset.outcome = item.outcome;
      card.setAttribute("role", "option");
      card.title = item.full + "\n" + item.caption + "\n" + item.outcome;
      const picture = document.createElement("img");
      picture.alt = item.full;
      if (pictures[item.key]) picture.src = pictures[item.key];
      const mark = document.createElement("span");
      mark.className = "pni-mark";
      mark.textContent = item.mark;
      const name = document.createElement("span");
      name.className = "pni-name";
      name.textContent = item.name;
      const caption = document.createElement("span");
      caption.textContent = item.caption;
      card.append(picture, mark, name, caption);
      card.addEventListener("click", () => choose(item.key));
      grid.appendChild(card);
    }
    select();
  }

  function choose(key) {
    model.set("selected", key);
    model.set("chosen", model.get("chosen") + 1); // the same card again counts too
    model.save_changes();
  }

  function select() {
    for (const card of grid.children) {
      card.setAttribute("aria-selected", String(card.dataset.key === model.get("selected")));
    }
  }

  function marks() { // a moved threshold changes outcomes far more often than pictures
    const by = Object.fromEntries(model.get("items").map((item) => [item.key, item]));
    const same = grid.children.length === model.get("items").length
      && [...grid.children].every((card, i) => card.dataset.key === model.get("items")[i].key);
    if (!same) return draw();
    for (const card of grid.children) {
      const item = by[card.dataset.key];
      card.dataset.outcome = item.outcome;
      card.title = item.full + "\n" + item.caption + "\n" + item.outcome;
      card.querySelector(".pni-mark").textContent = item.mark;
      card.lastChild.textContent = item.caption;
    }
  }

  model.on("change:items", marks);
  model.on("change:pictures", draw);
  model.on("change:selected", select);
  draw();
}
export default { render };
