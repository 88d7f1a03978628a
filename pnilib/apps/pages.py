"""Self-contained HTML pages: every page of the kit is a template of `apps/templates`, its pictures lie within.

Text is escaped by the templates; nothing on a page runs, and nothing is fetched.
"""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pnilib.store.files import atomic_write

__all__ = ["data_url", "picture_url", "render", "write_page"]

WIDEST = 1100
"""px: pictures are made no wider; the files beside the page keep every pixel."""


def picture_url(picture: Path | bytes, widest: int = WIDEST) -> str:
    """A picture file as the URL of an image that lies within a page: WebP, a tenth of a PNG's bytes."""
    with Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture)) as file:
        image = file.convert("RGB")
    image.thumbnail((widest, 10 * widest))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=72, method=6)
    return data_url(buffer.getvalue(), "image/webp")


def data_url(blob: bytes, kind: str) -> str:
    """A file within a page."""
    return f"data:{kind};base64,{base64.b64encode(blob).decode()}"


def render(template: str, **values: Any) -> str:
    """A page from its template: `values` and `picture_url` are what it may name."""
    loader = PackageLoader("pnilib.apps")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["picture_url"] = picture_url
    return environment.get_template(template).render(values)


def write_page(file: Path, template: str, **values: Any) -> Path:
    """Write a rendered page and return it.  Raises PNIError when it cannot be written."""
    text = render(template, **values)
    with atomic_write(file) as handle:
        handle.write(text)
    return file
