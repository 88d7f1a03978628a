"""HTML pages that need nothing from a network: Jinja templates, and pictures that a page holds itself."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from pnilib.store.artefacts import atomic_write

__all__ = ["data_url", "picture_url", "write_html"]

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def write_html(path: Path, template: str, **values: Any) -> None:
    """Fill `templates/<template>.html.j2`; whatever is not Markup is escaped."""
    with atomic_write(path) as handle:
        handle.write(_TEMPLATES.get_template(f"{template}.html.j2").render(values) + "\n")


def data_url(blob: bytes, kind: str = "png") -> str:
    """For a page that holds its pictures."""
    return f"data:image/{kind};base64,{base64.b64encode(blob).decode()}"


def picture_url(path: Path, width: int = 1100) -> str:
    """A picture for a page, at most `width` px wide, as WebP: a quarter of its PNG."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    image.thumbnail((width, image.height))
    blob = io.BytesIO()
    image.save(blob, format="WEBP", quality=60)
    return data_url(blob.getvalue(), "webp")
