"""The drawing canvas: strokes as the mouse makes them, patches as they are used, and the widget on top."""

import ipycanvas
import ipywidgets
import numpy as np
import pytest

from pnilib.apps.notebooks.drawing import Drawing, Stroke, canvas, rasterise
from pnilib.errors import PNIError
from pnilib.synthesis import synthesize
from pnilib.synthesis.patches import load_patches


def line(drawing, *points):
    drawing.press(*points[0])
    for point in points[1:]:
        drawing.move(*point)
    drawing.release()


def test_a_stroke_by_hand():
    """A level line 10 px thick from x = 20 to 60 at y = 40: its rectangle and two half-discs."""
    opacity = rasterise([Stroke([(20, 40), (60, 40)], 10)], 96)
    assert opacity.shape == (96, 96) and opacity.dtype == np.float32
    assert (opacity[36:44, 20:60] == 1).all()
    assert not opacity[:34].any() and not opacity[46:].any() and not opacity[:, :14].any()
    assert opacity.sum() == pytest.approx(40 * 10 + np.pi * 25, rel=0.03)
    dot = rasterise([Stroke([(48, 48)], 20)], 96)
    assert dot.sum() == pytest.approx(np.pi * 100, rel=0.03)


def test_strokes_follow_the_mouse(tmp_path):
    drawing = Drawing(tmp_path, side=96)
    assert not drawing.move(5, 5), "the pen is up"
    drawing.press(10, 10)
    assert drawing.move(20, 10)
    drawing.release()
    assert not drawing.move(90, 90)
    drawing.width = 3
    line(drawing, (30, 30), (40, 40), (40, 50))
    assert drawing.strokes == [Stroke([(10, 10), (20, 10)], 8.0), Stroke([(30, 30), (40, 40), (40, 50)], 3)]
    drawing.undo()
    assert len(drawing.strokes) == 1
    drawing.clear()
    drawing.undo()  # nothing left: no error
    assert drawing.strokes == []


def test_undo_while_drawing_lifts_the_pen(tmp_path):
    drawing = Drawing(tmp_path)
    line(drawing, (10, 10), (20, 20))
    drawing.press(50, 50)
    drawing.undo()
    assert not drawing.move(60, 60) and drawing.strokes[0].points == [(10, 10), (20, 20)]


def test_saved_and_used_at_once(tmp_path):
    drawing = Drawing(tmp_path / "mine", side=96)
    line(drawing, (20, 48), (70, 48))
    patch = drawing.opacity()
    assert patch.shape[1] == pytest.approx(58, abs=2) and patch.shape[0] == pytest.approx(8, abs=2)
    assert [p.shape for p in drawing.materials().patches] == [patch.shape], "also before it is saved"
    path = drawing.save()
    assert path.parent == tmp_path / "mine" and drawing.strokes == []
    assert np.allclose(load_patches(tmp_path / "mine")[0], patch, atol=0.5 / 255)
    line(drawing, (20, 20), (30, 30))
    assert len(drawing.materials().patches) == 2
    image = np.full((64, 64, 3), 0.5, np.float32)
    made = synthesize(image, "manual", 3, materials=drawing.materials())
    assert made.mask.any() and {record["patch"] for record in made.drawn["patches"]} <= {0, 1}


def test_nothing_drawn_is_one_clear_line(tmp_path):
    drawing = Drawing(tmp_path)
    for refused in (drawing.opacity, drawing.save, drawing.materials):
        with pytest.raises(PNIError, match="the patch is empty: draw something"):
            refused()
    line(drawing, (-50, -50), (-40, -50))  # beside the sheet
    with pytest.raises(PNIError, match="empty"):
        drawing.save()
    assert len(drawing.strokes) == 1 and not list(tmp_path.iterdir())
    with pytest.raises(PNIError, match="32 px"):
        Drawing(tmp_path, side=8)


# -- the widget, played by messages as the browser sends them ------------------------------------


def parts(box):
    sheet, controls, told = box.children
    width, undo, clear, save = controls.children
    assert isinstance(sheet, ipycanvas.Canvas) and isinstance(width, ipywidgets.IntSlider)
    return sheet, width, undo, clear, save, told


def send(sheet, event, **content):
    sheet._handle_custom_msg({"event": event, **content}, [])


def test_widget(tmp_path):
    drawing = Drawing(tmp_path / "mine", side=128)
    line(drawing, (5, 5), (9, 9))
    sheet, width, undo, clear, save, told = parts(canvas(drawing))
    assert sheet.width == sheet.height == 128
    width.value = 20
    send(sheet, "mouse_move", x=1, y=1)
    send(sheet, "mouse_down", x=30, y=40)
    send(sheet, "mouse_move", x=60, y=40)
    send(sheet, "mouse_out", x=128, y=40)
    send(sheet, "mouse_move", x=100, y=100)
    send(sheet, "touch_start", touches=[{"x": 80, "y": 80}])
    send(sheet, "touch_move", touches=[{"x": 90, "y": 80}])
    send(sheet, "touch_end", touches=[])
    assert drawing.strokes[1:] == [Stroke([(30, 40), (60, 40)], 20), Stroke([(80, 80), (90, 80)], 20)]
    undo.click()
    assert len(drawing.strokes) == 2
    save.click()
    assert told.value == f"saved as {tmp_path / 'mine' / 'patch_001.png'}" and drawing.strokes == []
    save.click()
    assert "empty" in told.value
    send(sheet, "mouse_down", x=30, y=40)
    send(sheet, "mouse_up", x=30, y=40)
    assert drawing.strokes == [Stroke([(30, 40)], 20)]
    clear.click()
    assert drawing.strokes == []
