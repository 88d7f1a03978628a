"""The explorer on the screen: samples under a threshold, one image, one pixel, two results compared.

Thin: what is shown is computed in `pnilib.explore`, and every name from a run is escaped or shown as plain text.
"""

import math
from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as W
import pandas as pd
from IPython.display import display
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.explore.explanation import cell_at, explain_cell
from pnilib.explore.maps import base_result, features_of, maps_of
from pnilib.explore.notes import LABELS, Note, Notes
from pnilib.explore.opened import Category, Exploration, open_exploration
from pnilib.explore.pictures import data_url, rgb, thumbnail
from pnilib.explore.prepare import is_fit, prepare
from pnilib.explore.samples import (
    OUTCOMES,
    PAPER_ERRORS,
    Filter,
    changed_sides,
    counts,
    default_threshold,
    is_mvtec,
    samples,
)
from pnilib.explore.widgets.gallery import Gallery
from pnilib.explore.widgets.image import ImagePlot, panels_of
from pnilib.explore.widgets.pixel import pixel_html
from pnilib.explore.widgets.scatter import ScatterPlot
from pnilib.explore.widgets.threshold import ThresholdPlot

__all__ = ["Explorer", "explore", "page"]

ALL = "all categories"
PAGE = 24
"""thumbnails at a time."""
SAMPLES, IMAGE, COMPARE = range(3)
"""tabs."""
MARKS = {"false positive": "FP", "false negative": "FN", "true positive": "TP", "true negative": "TN", "unknown": "?"}
WIDE = W.Layout(width="100%")


def explore(
    run: Path | str, *, data: Path | str | None = None, other: Path | str | None = None,
    notes: Path | str | None = None,
) -> W.Widget:  # fmt: skip
    """The explorer of a run, for a notebook's cell.

    run: the --store of `pni reproduce` or the --out of `pni fit`, opened by `open_exploration` with `data` and `other`.
    notes: the CSV of the reader's notes; default notes.csv in the run.  Raises PNIError as `open_exploration` does.
    """
    if Path(run).is_dir() and is_fit(run):
        prepare(run, data=data, progress=True)
    opened = open_exploration(run, data=data, other=other)
    return Explorer(opened, Notes(opened.home / "notes.csv" if notes is None else notes))


def page(
    run: Path | str, *, data: Path | str | None = None, other: Path | str | None = None, notes: Path | str | None = None
) -> None:
    """The explorer as what `pni explore` serves: without the field that points to another folder."""
    try:
        opened = open_exploration(run, data=data, other=other)
        display(Explorer(opened, Notes(opened.home / "notes.csv" if notes is None else notes), point=False))
    except PNIError as fault:
        display(W.HTML(f"<span style='color:#b00020'>{escape(str(fault))}</span>"))


def _told(method: Callable[..., None]) -> Callable[..., None]:
    """A user's mistake, or a file that is not there, becomes a line on the screen."""

    @wraps(method)
    def run(self: "Explorer", *args: Any) -> None:
        try:
            method(self, *args)
        except PNIError as fault:
            self.say(str(fault), bad=True)

    return run


class Explorer(W.VBox):  # type: ignore[misc]
    """Three tabs over one state: result, category, thresholds, filter, chosen image, chosen pixel.

    `point`: whether the reader may name another data folder on the screen (not on a page that others may open).
    """

    def __init__(self, opened: Exploration, notes: Notes, *, point: bool = True) -> None:
        self.opened, self.notes = opened, notes
        self.thresholds: dict[str, dict[str, float]] = {}
        self.page, self.shown = 0, pd.DataFrame()
        self.chosen: tuple[Category, int] | None = None
        self.pixel: tuple[int, int] | None = None
        self.note = Note()
        self._features: dict[tuple[str, int, str], Tensor] = {}
        self._quiet = False
        self._build(point)
        super().__init__([self.head, self.message, self.tabs])
        self.add_class("pni-explorer")
        self._result_changed()

    # -- what is on the screen -----------------------------------------------------------------

    def _build(self, point: bool) -> None:
        opened = self.opened
        keys = list(opened.categories)
        self.message = W.HTML().add_class("pni-message")
        name = escape(opened.folder.resolve().name)
        title = W.HTML(f"<b style='font-size:18px'>{name}</b>")
        if opened.unfinished:
            lines = "<br>".join(escape(line) for line in opened.unfinished)
            title.value += (
                f"<details><summary>{len(opened.unfinished)} units not finished, left out</summary>{lines}</details>"
            )
        self.result = W.Dropdown(options=opened.labels, description="result", style={"description_width": "60px"})
        self.category = W.Dropdown(options=([ALL] if len(keys) > 1 else []) + keys, description="category")
        self.head = W.VBox([title, W.HBox([self.result, self.category])])

        self.slider = W.FloatSlider(
            description="threshold", readout_format=".4f", layout=W.Layout(width="560px"), step=1e-4
        ).add_class("pni-threshold")
        self.to_best = W.Button(description="F1-optimal (test)", tooltip="the threshold of I-F1-max on the test images")
        self.to_normal = W.Button(description="normal-only", tooltip="from normal training images alone")
        self.counts = W.HTML().add_class("pni-counts")
        self.plot = ThresholdPlot()
        self.outcomes = W.SelectMultiple(options=OUTCOMES, rows=5, description="outcome").add_class("pni-outcomes")
        self.defects = W.SelectMultiple(options=[], rows=5, description="defect").add_class("pni-defects")
        self.text = W.Text(description="file name", continuous_update=True, placeholder="part of it").add_class(
            "pni-text"
        )
        self.low = W.FloatText(value=-math.inf, description="score from")
        self.high = W.FloatText(value=math.inf, description="to")
        self.clear = W.Button(description="show all")
        self.back, self.forward = W.Button(description="\u25c0"), W.Button(description="\u25b6")
        for button in (self.back, self.forward):
            button.layout.width = "48px"
        self.where = W.Label().add_class("pni-where")
        self.gallery = Gallery()
        self.export_page = W.Button(description="selection as HTML", icon="download").add_class("pni-export-page")
        self.export_view = W.Button(description="view as PNG", icon="download").add_class("pni-export-view")
        self.taken = W.HTML().add_class("pni-taken")
        filters = W.HBox([self.outcomes, self.defects, W.VBox([self.text, self.low, self.high, self.clear])])
        samples_tab = W.VBox(
            [
                W.HBox([self.slider, self.to_best, self.to_normal]), self.counts, self.plot, filters,
                W.HBox([self.back, self.where, self.forward, self.export_page]), self.gallery,
            ]
        )  # fmt: skip

        self.title = W.HTML("choose an image among the samples").add_class("pni-title")
        self.opacity = W.FloatSlider(0.6, min=0, max=1, step=0.05, description="overlay", continuous_update=True)
        self.image_box = W.VBox()
        self.image_plot: ImagePlot | None = None
        self.explained_as = W.Dropdown(options=[], description="explain under", style={"description_width": "90px"})
        self.answer = W.HTML("click on a pixel to ask why it scores as it does").add_class("pni-answer")
        self.label = W.Dropdown(options=[(name or "as in the data", name) for name in LABELS], description="label")
        self.note_text = W.Textarea(placeholder="a note on this image", layout=W.Layout(width="480px")).add_class(
            "pni-note"
        )
        self.save = W.Button(description="save note", button_style="primary").add_class("pni-save")
        self.root = W.Text(placeholder="/where/the/data/set/is", description="data folder").add_class("pni-root")
        self.use_root = W.Button(description="use").add_class("pni-use-root")
        self.pointing = W.HBox([self.root, self.use_root])
        self.pointing.layout.display = "none"
        self.may_point = point
        image_tab = W.VBox(
            [
                self.title, self.pointing, W.HBox([self.opacity, self.explained_as]), self.image_box, self.answer,
                W.HBox([self.label, self.note_text, self.save]),
            ]
        )  # fmt: skip

        self.ours = W.Dropdown(options=opened.labels, description="ours")
        self.base = W.Dropdown(options=opened.labels, description="against")
        wanted = [name for name in ("A", "E") if name in opened.labels]
        self.base.value = next((n for n in wanted if n != self.ours.value), opened.labels[-1])
        self.scatter: ScatterPlot | None = None
        self.scatter_box = W.VBox()
        self.sides = W.HTML().add_class("pni-sides")
        self.changed = Gallery()
        compare_tab = W.VBox([W.HBox([self.ours, self.base]), self.sides, self.scatter_box, self.changed])

        self.tabs = W.Tab([samples_tab, image_tab, compare_tab], layout=WIDE)
        for k, name in enumerate(("Samples", "Image and pixel", "Compare")):
            self.tabs.set_title(k, name)
        self.head.children += (W.HBox([self.export_view, self.taken]),)
        self._connect()

    def _connect(self) -> None:
        for widget in (self.result, self.category):
            widget.observe(self._result_changed, "value")
        self.slider.observe(self._slid, "value")
        self.to_best.on_click(lambda _: self._jump("i_threshold"))
        self.to_normal.on_click(lambda _: self._jump("normal_threshold"))
        for widget in (self.outcomes, self.defects, self.text, self.low, self.high):
            widget.observe(self._filtered, "value")
        self.clear.on_click(self._show_all)
        self.back.on_click(lambda _: self._turn(-1))
        self.forward.on_click(lambda _: self._turn(1))
        self.gallery.observe(self._card_chosen, "chosen")
        self.changed.observe(self._card_chosen, "chosen")
        self.opacity.observe(self._faded, "value")
        self.explained_as.observe(lambda _: self._explain(), "value")
        self.save.on_click(self._save_note)
        self.use_root.on_click(self._point)
        self.export_page.on_click(self._export_selection)
        self.export_view.on_click(self._export_view)
        for widget in (self.ours, self.base):
            widget.observe(self._draw_comparison, "value")
        self.tabs.observe(self._draw_comparison, "selected_index")

    def say(self, text: str, *, bad: bool = False) -> None:
        """One line above the tabs."""
        colour = "#b00020" if bad else "#00695c"
        self.message.value = f"<span style='color:{colour}'>{escape(text)}</span>" if text else ""

    # -- samples and threshold -----------------------------------------------------------------

    @property
    def part(self) -> Exploration:
        """The categories that are looked at."""
        key = self.category.value
        chosen = self.opened.categories if key == ALL else {key: self.opened.categories[key]}
        return Exploration(self.opened.folder, dict(chosen))

    def _threshold(self, label: str, key: str) -> float:
        found = self.thresholds.get(label, {}).get(key)
        return default_threshold(self.opened.categories[key].results[label]) if found is None else found

    @_told
    def _result_changed(self, *_: Any) -> None:
        self.say("")
        label, part = self.result.value, self.part
        table = samples(part, label, self.thresholds.get(label))
        single = self.category.value != ALL
        self.slider.disabled = not single
        self.slider.description = "threshold" if single else "(one category)"
        for button in (self.to_best, self.to_normal):
            button.disabled = not single
        marks: dict[str, float] = {"F1-optimal and all": 0.0} if not single else {}
        if single:
            key = self.category.value
            result, scores = self.opened.categories[key].results[label], table["score"]
            named = {"F1-optimal (test)": "i_threshold", "normal-only": "normal_threshold"}
            marks = {name: at for name, metric in named.items() if math.isfinite(at := result.metric(metric))}
            self.to_best.disabled, self.to_normal.disabled = (name not in marks for name in named)
            values = [*scores, *marks.values()]
            room = 0.02 * (max(values) - min(values)) or 1.0
            self._quiet = True
            low, high = min(values) - room, max(values) + room
            self.slider.min, self.slider.max = min(low, self.slider.min), max(high, self.slider.max)
            self.slider.value = self._threshold(label, key)
            self.slider.min, self.slider.max, self.slider.step = low, high, (high - low) / 2000
            self._quiet = False
        else:
            marks = {}
        kinds = sorted(set(table["defect_type"]))
        self._quiet = True
        self.defects.options = kinds
        self._quiet = False
        self.plot.show(table, "score" if single else "margin", marks)
        self.page = 0
        self._update(table)
        if self.chosen is not None and self.tabs.selected_index == IMAGE:
            self._open(*self.chosen)

    @_told
    def _slid(self, change: dict[str, Any]) -> None:
        if not self._quiet:
            self.set_threshold(change["new"])

    def set_threshold(self, threshold: float) -> None:
        """Of the shown result in the shown category."""
        label, key = self.result.value, self.category.value
        self.thresholds.setdefault(label, {})[key] = threshold
        self._update(samples(self.part, label, self.thresholds[label]))

    @_told
    def _jump(self, metric: str) -> None:
        value = self.opened.categories[self.category.value].results[self.result.value].metric(metric)
        self._quiet = True
        self.slider.value = value
        self._quiet = False
        self.set_threshold(value)

    def _update(self, table: pd.DataFrame) -> None:
        """Everything that follows the threshold."""
        found = counts(table)
        single = self.category.value != ALL
        self.plot.move(self._threshold(self.result.value, self.category.value) if single else 0.0, found)
        self.counts.value = counts_html(self.part, self.result.value, table)
        self.table = table
        self._filtered()

    @_told
    def _filtered(self, change: Any = None) -> None:
        if self._quiet:
            return
        if change is not None:
            self.page = 0
        wanted = Filter(
            outcomes=self.outcomes.value, defect_types=self.defects.value, low=self.low.value, high=self.high.value,
            text=self.text.value.strip(),
        )  # fmt: skip
        self.shown = wanted.rows(self.table)
        self._turn(0)

    def _show_all(self, _: Any) -> None:
        self._quiet = True
        self.outcomes.value, self.defects.value, self.text.value = (), (), ""
        self.low.value, self.high.value = -math.inf, math.inf
        self._quiet = False
        self._filtered({})

    def _turn(self, step: int) -> None:
        last = max(0, (len(self.shown) - 1) // PAGE)
        self.page = min(max(self.page + step, 0), last)
        rows = self.shown.iloc[self.page * PAGE : (self.page + 1) * PAGE]
        self.back.disabled, self.forward.disabled = self.page == 0, self.page == last
        first = self.page * PAGE + 1 if len(rows) else 0
        self.where.value = f"{first} to {self.page * PAGE + len(rows)} of {len(self.shown)} samples, highest first"
        self._fill(self.gallery, rows, "score", "outcome")

    def _fill(self, gallery: Gallery, rows: pd.DataFrame, score: str, outcome: str) -> None:
        items, pictures = [], {}
        kept = gallery.pictures
        for row in rows.to_dict("records"):
            key = f"{row['category']}:{row['index']}"
            was = "" if outcome == "outcome" else f"{MARKS[row['outcome_base']]} \u2192 {MARKS[row[outcome]]}, "
            items.append(
                dict(
                    key=key, name=short(row["image"]), full=f"{row['category']}: {row['image']}",
                    caption=f"{was}{row[score]:.4g} {row['defect_type']}", outcome=row[outcome],
                    mark=MARKS[row[outcome]],
                )
            )  # fmt: skip
            pictures[key] = kept[key] if kept.get(key) else self._picture(row["category"], row["index"])
        gallery.show(items, pictures)

    def _picture(self, key: str, i: int) -> str:
        try:
            return data_url(thumbnail(self.opened.categories[key], i), "jpeg")
        except PNIError as fault:  # the numbers can be explored without the pictures
            self.say(str(fault), bad=True)
            self._offer_pointing()
            return ""

    def _offer_pointing(self) -> None:
        if self.may_point:
            self.pointing.layout.display = ""

    @_told
    def _point(self, _: Any) -> None:
        """Look for the data set elsewhere."""
        opened = open_exploration(self.opened.folder, data=self.root.value.strip() or None)
        for key, category in self.opened.categories.items():
            category.move(opened.categories[key].root)
        next(iter(self.opened.categories.values())).data  # noqa: B018  # says so when it is not there either
        self.say("found")
        self.pointing.layout.display = "none"
        self.gallery.pictures = {}
        self._turn(0)
        if self.chosen is not None:
            self._open(*self.chosen)

    # -- one image -----------------------------------------------------------------------------

    @_told
    def _card_chosen(self, change: dict[str, Any]) -> None:
        key, _, i = change["owner"].selected.rpartition(":")
        if key in self.opened.categories:
            self.open_image(key, int(i))

    @_told
    def _compared_chosen(self, key: str, i: int) -> None:
        self.open_image(key, i)

    def open_image(self, key: str, i: int) -> None:
        """Show one test image.  Raises PNIError for one that the run has not."""
        category = self.opened.category(key)
        if not 0 <= i < len(category.names):
            raise PNIError(f"{key}: has no test image {i}")
        self.chosen, self.pixel = (category, i), None
        self.answer.value = "click on a pixel to ask why it scores as it does"
        self._open(category, i)
        self.tabs.selected_index = IMAGE

    def _open(self, category: Category, i: int) -> None:
        label = self.result.value
        row = self._row(category, i)
        truth = {0: "normal", 1: f"defective ({row['defect_type']})", -1: "of unknown label"}[row["label"]]
        self.title.value = (
            f"<b>{escape(category.key)}: {escape(row['image'])}</b>, {escape(truth)}; {escape(label)}: score "
            f"<b>{row['score']:.5g}</b>, threshold {row['threshold']:.5g}: <b>{row['outcome']}</b>"
        )
        self.note = self.notes.of(category.key, row["image"])
        self.label.value, self.note_text.value = self.note.label, self.note.text
        image = mask = None
        try:
            image = rgb(category.image(i))
            found = category.mask(i)
            mask = None if found is None else found.numpy()
            if found is None:
                self.title.value += "; no true mask"
        except PNIError as fault:
            self.say(str(fault), bad=True)
            self._offer_pointing()
        self.maps = maps_of(category, i, (label,))
        panels = panels_of(category, label, self.maps, image)
        if not panels:
            raise PNIError(f"{row['image']}: neither the image nor any map is at hand")
        if self.image_plot is None:  # made when needed: each plot brings its library along
            self.image_plot = ImagePlot(self._pixel_clicked)
            self.image_box.children = (self.image_plot,)
        self.image_plot.show(panels, mask, self.opacity.value)
        base = base_result(category)
        names = [] if base is None else [n for n in ("E", "A", "B", "position") if n in self.maps]
        if tuple(names) != self.explained_as.options:
            self.explained_as.options = names
            self.explained_as.value = names[0] if names else None

    def _faded(self, change: dict[str, Any]) -> None:
        if self.image_plot is not None:
            self.image_plot.set_opacity(change["new"])

    def _row(self, category: Category, i: int) -> dict[str, Any]:
        label = self.result.value
        part = Exploration(self.opened.folder, {category.key: category})
        table = samples(part, label, self.thresholds.get(label))
        row = table[table["index"] == i].iloc[0]
        return {str(name): value for name, value in row.items()}

    @_told
    def _pixel_clicked(self, row: int, column: int) -> None:
        self.ask(row, column)

    def ask(self, row: int, column: int) -> None:
        """Explain one pixel of the shown image."""
        self.pixel = (row, column)
        if self.image_plot is not None:
            self.image_plot.mark(row, column)
        self._explain()

    @_told
    def _explain(self) -> None:
        if self.pixel is None or self.chosen is None or not self.explained_as.value:
            return
        category, i = self.chosen
        name, (row, column) = self.explained_as.value, self.pixel
        base = base_result(category)
        assert base is not None
        model = category.model(base)
        key = (category.key, i, base.label)
        if key not in self._features:
            self._features = {key: features_of(model, category, i)}  # one image's is enough to keep
        features = self._features[key]
        config = base.config.replace(setting=name)
        border = config.border_cells if config.border == "replicate" else 0
        grid = (features.shape[0], features.shape[1])
        cell = cell_at(row, column, config.image_crop, grid, border)
        found = explain_cell(model, features, cell, config)
        values = {label: float(one[row, column]) for label, one in self.maps.items()}
        threshold = math.nan
        if name in category.results:
            threshold = self._threshold(name, category.key)
        self.answer.value = pixel_html(category, found, grid, values, values[name], threshold)
        self.say("")

    # -- two results ---------------------------------------------------------------------------

    @_told
    def _draw_comparison(self, *_: Any) -> None:
        if self.tabs.selected_index != COMPARE:
            return
        ours, base = self.ours.value, self.base.value
        at = [self.thresholds.get(label, {}) for label in (ours, base)]
        table = changed_sides(self.opened, ours, base, at)
        changed = table[table["changed"] != ""]
        n = changed["changed"].value_counts()
        self.sides.value = (
            f"{escape(ours)} against {escape(base)}: {n.get('now right', 0)} images are right now that were wrong, "
            f"{n.get('now wrong', 0)} are wrong now that were right, of {len(table)}."
        )
        if self.scatter is None:
            self.scatter = ScatterPlot(self._compared_chosen)
            self.scatter_box.children = (self.scatter,)
        self.scatter.show(table, ours, base)
        self._fill(self.changed, changed.head(2 * PAGE), "score_ours", "outcome_ours")

    # -- take away -----------------------------------------------------------------------------

    @_told
    def _save_note(self, _: Any) -> None:
        if self.chosen is None:
            raise PNIError("choose an image first")
        category, i = self.chosen
        image = category.names[i]
        try:
            self.note = self.notes.save(category.key, image, self.label.value, self.note_text.value, self.note)
        except PNIError:
            self.note = self.notes.of(category.key, image)  # what the reader has now been told of
            raise
        self.say(f"saved to {self.notes.file}")

    @_told
    def _export_selection(self, _: Any) -> None:
        from pnilib.explore.export import page_html

        page = page_html(self.part, self.shown, self.result.value, self.notes)
        self._offer(page.encode(), "selection.html", "text/html")

    @_told
    def _export_view(self, _: Any) -> None:
        from pnilib.explore.export import figure_png
        from pnilib.figures.explore import draw_changes, draw_image, draw_pixel, draw_samples, draw_threshold

        label, part = self.result.value, self.part
        at = self.thresholds.get(label, {})
        if self.tabs.selected_index == SAMPLES:
            figures = [draw_threshold(part, label, at), draw_samples(part, self.shown)]
        elif self.tabs.selected_index == IMAGE:
            if self.chosen is None:
                raise PNIError("choose an image first")
            category, i = self.chosen
            figures = [draw_image(self.opened, category.key, i, list(self.maps))]
            if self.pixel is not None:
                figures.append(draw_pixel(self.opened, category.key, i, self.explained_as.value, *self.pixel))
        else:
            figures = [draw_changes(self.opened, self.ours.value, self.base.value)]
        self._offer(figure_png(figures), "view.png", "image/png")

    def _offer(self, blob: bytes, name: str, kind: str) -> None:
        """A link that saves it: nothing is written on this side."""
        url = data_url(blob, "png").replace("image/png", kind, 1)
        self.taken.value = f"<a download='{name}' href='{url}'>save {name} ({len(blob) / 1e6:.1f} MB)</a>"


def short(image: str) -> str:
    """The end of a path, which tells images apart."""
    return "/".join(image.split("/")[-2:])


def counts_html(part: Exploration, label: str, table: pd.DataFrame) -> str:
    """Confusion, rates, and where they can be compared the paper's."""
    found = counts(table)

    def rate(value: float) -> str:
        return "undefined" if math.isnan(value) else f"{100 * value:.2f} %"

    unknown = int((table["label"] < 0).sum())
    parts = [
        f"<b>TP {found.tp}</b> <b>FP {found.fp}</b> <b>FN {found.fn}</b> <b>TN {found.tn}</b>",
        f"F1 {rate(found.f1)}", f"FPR {rate(found.fpr)}", f"FNR {rate(found.fnr)}",
    ]  # fmt: skip
    if unknown:
        parts.append(f"{unknown} of unknown label")
    if all(is_mvtec(category) for category in part.categories.values()) and len(part.categories) == 15:
        parts.append(
            f"paper, PNI (ensemble) on MVTec AD: FP {PAPER_ERRORS['fp']}, FN {PAPER_ERRORS['fn']} of "
            f"{PAPER_ERRORS['n_normal']} normal and {PAPER_ERRORS['n_defective']:,} defective"
        )
    return f"<span style='font-size:14px'>{' &nbsp; '.join(parts)}</span>"
