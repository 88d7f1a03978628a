"""Text in figures that comes from files and readers: drawn as it is, never as a formula.

matplotlib reads `$...$` as mathematics and fails on what is none, and warns of letters that its font lacks; an image
may be called anything.
"""

from functools import lru_cache
from pathlib import PurePosixPath

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

__all__ = ["UNKNOWN", "drawable", "file_label", "shortened", "suptitle", "title", "write", "write_on"]

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""In place of what the font cannot draw."""


def drawable(text: object) -> str:
    """The text on its lines, with what the font has no glyph for replaced."""
    return "".join(letter if letter == "\n" or _has_glyph(letter) else UNKNOWN for letter in str(text))


def shortened(text: str, most: int) -> str:
    """The last characters of a text that is longer than `most`, after an ellipsis: names differ at their end."""
    return text if len(text) <= most else f"…{text[len(text) - most + 1 :]}"


def file_label(image: str, most: int = 24) -> str:
    """Folder and name of an image, as "scratch/005.png", on one line."""
    return shortened("/".join(PurePosixPath(image).parts[-2:]).replace("\n", UNKNOWN), most)


def write(ax: Axes, x: float, y: float, text: str, **options: object) -> Text:
    """`Axes.text`, in the unit square of the panel."""
    return ax.text(x, y, drawable(text), transform=ax.transAxes, parse_math=False, **options)  # type: ignore[arg-type]


def write_on(figure: Figure, x: float, y: float, text: str, **options: object) -> Text:
    """`Figure.text`."""
    return figure.text(x, y, drawable(text), parse_math=False, **options)  # type: ignore[arg-type]


def title(ax: Axes, text: str, size: float = 10) -> None:
    """`Axes.set_title`."""
    ax.set_title(drawable(text), fontsize=size, parse_math=False)


def suptitle(figure: Figure, text: str, size: float = 11) -> None:
    """`Figure.suptitle`."""
    figure.suptitle(drawable(text), fontsize=size).set_parse_math(False)


@lru_cache(maxsize=4096)
def _has_glyph(letter: str) -> bool:
    return letter.isprintable() and get_font(findfont(FontProperties())).get_char_index(ord(letter)) > 0
