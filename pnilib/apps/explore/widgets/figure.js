// A picture that is drawn on the other side.  Clicks, turns of the wheel and drags go there as places in parts of the
// picture.  Words go in as text, never as HTML: file names may hold anything.
function render({ model, el }) {
  const words = document.createElement("div"), place = document.createElement("div"), picture = document.createElement("img");
  words.className = "pni-words";
  place.className = "pni-picture";
  picture.draggable = false;
  picture.alt = "";
  place.append(picture);
  el.append(words, place);
  let waits = false; // for the picture that answers a turn of the wheel or a drag

  function say() { words.textContent = model.get("words"); }

  function draw() {
    const bytes = model.get("picture"), old = picture.src;
    place.hidden = !bytes.byteLength;
    if (bytes.byteLength) picture.src = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    if (old) URL.revokeObjectURL(old);
    waits = false;
  }

  function deal() { // one button a card: for the keyboard, for a pointer that rests, for who reads no picture
    const cards = model.get("cards").map(({ name, box: [left, top, width, height] }) => {
      const card = document.createElement("button");
      card.className = "pni-card";
      card.title = name;
      card.setAttribute("aria-label", name);
      for (const [side, part] of Object.entries({ left, top, width, height })) card.style[side] = 100 * part + "%";
      card.addEventListener("click", () => send("click", { x: left + width / 2, y: top + height / 2 }));
      return card;
    });
    place.replaceChildren(picture, ...cards);
  }

  function send(kind, more) {
    model.set("gesture", { n: (model.get("gesture").n || 0) + 1, kind, ...more });
    model.save_changes();
  }

  function at(event) {
    const box = picture.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  let start = null;
  picture.addEventListener("pointerdown", (event) => {
    start = at(event);
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointerup", (event) => {
    if (!start) return;
    const end = at(event), box = picture.getBoundingClientRect();
    const far = Math.hypot((end.x - start.x) * box.width, (end.y - start.y) * box.height) > 4;
    if (!far) send("click", start);
    else if (model.get("zooms")) send("drag", { ...start, dx: end.x - start.x, dy: end.y - start.y });
    start = null;
  });
  place.addEventListener("wheel", (event) => {
    if (!model.get("zooms")) return;
    event.preventDefault();
    if (waits) return; // one turn after the other
    waits = true;
    setTimeout(() => { waits = false; }, 1000); // where no other picture comes
    send("wheel", { ...at(event), factor: event.deltaY < 0 ? 0.7 : 1 / 0.7 });
  }, { passive: false });

  model.on("change:words", say);
  model.on("change:picture", draw);
  model.on("change:cards", deal);
  place.classList.toggle("pni-zooms", model.get("zooms"));
  say();
  draw();
  deal();
  return () => {
    model.off("change:words", say);
    model.off("change:picture", draw);
    model.off("change:cards", deal);
    if (picture.src) URL.revokeObjectURL(picture.src);
  };
}
export default { render };
