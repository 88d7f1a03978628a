"""A drawing canvas for notebooks: strokes become defect patches of `pnilib.synthesis.manual`.

`Drawing` holds the strokes, as lists of points, and needs no browser; `canvas` shows it as a widget (ipycanvas), with
the brush width, undo, clear and save.  Saved patches are PNG files in one folder, and used from then on.

The paper: "we make the defect patches in a hand-drawing manner" (supplement S2).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import ipywidgets  # type: ignore[import-untyped]
import numpy as np
from ipycanvas import Canvas, hold_canvas  # type: ignore[import-untyped]
from jaxtyping import Float32
from numpy import ndarray

from pnilib.data.files import images_in
from pnilib.errors import PNIError
from pnilib.synthesis.painting import Materials
from pnilib.synthesis.patches import crop_patch, load_patches, save_patch, trace

__all__ = ["Drawing", "Stroke", "canvas", "rasterise"]

FINE = 4
"""Drawn pixels per patch pixel, along each axis: smooth edges."""

WIDTHS = (1, 60)
"""px; thinnest and thickest brush."""


class Stroke(NamedTuple):
    """Points (x, y) in px, x to the right, y down, and the brush's width in px."""

    points: list[tuple[float, float]]
    width: float


def rasterise(strokes: Sequence[Stroke], side: int) -> Float32[ndarray, "side side"]:
    """Opacity in [0, 1] of strokes on a sheet of `side` px: 1 under the brush, its edge smooth."""
    sheet = np.zeros((side * FINE, side * FINE), np.float32)
    for stroke in strokes:
        points = np.array(stroke.points, float) * FINE
        trace(sheet, points, np.full(len(points), float(stroke.width) * FINE))
    return np.clip(cv2.resize(sheet, (side, side), interpolation=cv2.INTER_AREA), 0, 1)


class Drawing:
    """Strokes on a square sheet; `folder` takes the saved patches.  Raises PNIError for a side under 32 px."""

    def __init__(self, folder: Path | str, side: int = 320) -> None:
        if side < 32:
            raise PNIError(f"side={side}: nobody can draw on that: 32 px at least")
        self.folder = Path(folder)
        self.side = side
        self.width = 8.0
        self.strokes: list[Stroke] = []
        self._open = False

    def press(self, x: float, y: float) -> None:
        """Begin a stroke."""
        self.strokes.append(Stroke([(float(x), float(y))], self.width))
        self._open = True

    def move(self, x: float, y: float) -> bool:
        """Draw on while the pen is down; whether it is."""
        if self._open:
            self.strokes[-1].points.append((float(x), float(y)))
        return self._open

    def release(self) -> None:
        """End the stroke."""
        self._open = False

    def undo(self) -> None:
        """Take the last stroke away."""
        self._open = False
        del self.strokes[-1:]

    def clear(self) -> None:
        """An empty sheet."""
        self._open = False
        self.strokes.clear()

    def opacity(self) -> Float32[ndarray, "h w"]:
        """The strokes as one patch, cropped.  Raises PNIError when nothing is drawn."""
        return crop_patch(rasterise(self.strokes, self.side))

    def save(self) -> Path:
        """Write the patch into the folder, clear the sheet; the file's path.

        Raises PNIError when nothing is drawn or the folder cannot be written; the strokes stay then.
        """
        path = save_patch(self.folder, self.opacity())
        self.clear()
        return path

    def materials(self) -> Materials:
        """The folder's patches and, last, what is on the sheet, for `synthesize(..., materials=...)`.

        Raises PNIError when there is neither, or when the folder holds a damaged picture.
        """
        patches = load_patches(self.folder) if self.folder.is_dir() and images_in(self.folder) else []
        if self.strokes or not patches:
            patches = [*patches, self.opacity()]
        return Materials(patches=patches)


def canvas(drawing: Drawing) -> ipywidgets.VBox:
    """The widget: draw with mouse, pen or finger; white is opaque.  It shows strokes that are there already."""
    sheet = Canvas(width=drawing.side, height=drawing.side)
    width = ipywidgets.IntSlider(int(drawing.width), *WIDTHS, description="brush, px")
    undo, clear, save = (ipywidgets.Button(description=name) for name in ("undo", "clear", "save as patch"))
    told = ipywidgets.Label("draw a defect in white; then save it")

    def paint() -> None:
        with hold_canvas():
            sheet.fill_style = "black"
            sheet.fill_rect(0, 0, drawing.side, drawing.side)
            for stroke in drawing.strokes:
                _paint(sheet, stroke)

    def press(x: float, y: float) -> None:
        drawing.press(x, y)
        _paint(sheet, drawing.strokes[-1])

    def move(x: float, y: float) -> None:
        if drawing.move(x, y):
            last = drawing.strokes[-1]
            _paint(sheet, Stroke(last.points[-2:], last.width))

    def save_it() -> None:
        try:
            told.value = f"saved as {drawing.save()}"
        except PNIError as fault:
            told.value = str(fault)

    def set_width(change: dict[str, Any]) -> None:
        drawing.width = float(change["new"])

    sheet.on_mouse_down(press)
    sheet.on_mouse_move(move)
    sheet.on_mouse_up(lambda x, y: drawing.release())
    sheet.on_mouse_out(lambda x, y: drawing.release())
    sheet.on_touch_start(lambda touches: press(*touches[0]))
    sheet.on_touch_move(lambda touches: move(*touches[0]))
    sheet.on_touch_end(lambda touches: drawing.release())
    sheet.on_touch_cancel(lambda touches: drawing.release())
    width.observe(set_width, "value")
    for button, action in ((undo, drawing.undo), (clear, drawing.clear), (save, save_it)):

        def clicked(_: ipywidgets.Button, action: Callable[[], None] = action) -> None:
            action()
            paint()

        button.on_click(clicked)
    paint()
    return ipywidgets.VBox([sheet, ipywidgets.HBox([width, undo, clear, save]), told])


def _paint(sheet: Canvas, stroke: Stroke) -> None:
    """One stroke in the browser, as `rasterise` draws it: round ends and corners."""
    sheet.stroke_style = sheet.fill_style = "white"
    sheet.line_width, sheet.line_cap, sheet.line_join = stroke.width, "round", "round"
    if len(stroke.points) == 1:
        sheet.fill_circle(*stroke.points[0], stroke.width / 2)
    else:
        sheet.stroke_lines(stroke.points)
