"""An executed notebook as one HTML file that needs nothing from a network.

nbconvert's page fetches MathJax and other scripts when it is opened.  Here formulas become MathML,
which browsers draw themselves, pictures are embedded, and every script is left out.
"""

import re
import warnings
from html import escape
from pathlib import Path
from typing import Any

import latex2mathml.converter  # type: ignore[import-untyped]
import nbformat
from jinja2 import pass_context
from nbconvert import HTMLExporter  # type: ignore[import-untyped]
from nbconvert.filters.markdown_mistune import (  # type: ignore[import-untyped]
    IPythonRenderer,
    MarkdownWithMath,
)

__all__ = ["notebook_html"]

_SCRIPT = re.compile(r"<script\b.*?</script\s*>", re.DOTALL | re.IGNORECASE)


def notebook_html(notebook: nbformat.NotebookNode, title: str, folder: Path) -> str:
    """The notebook, outputs included, as the text of one static HTML page.

    Pictures that its text links to are looked up in `folder`, where the notebook was written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions of the notebook format: none of the reader's business
        page, _ = _StaticExporter().from_notebook_node(
            notebook, resources={"metadata": {"name": title, "path": str(folder)}}
        )
    return _SCRIPT.sub("", page)


def _mathml(tex: str, display: str) -> str:
    """MathML; the TeX source where the converter has no answer, so that nothing is lost."""
    try:
        return str(latex2mathml.converter.convert(tex.strip(), display=display))
    except Exception:  # its errors have no common base
        return f"<code>{escape(tex.strip())}</code>"


class _MathRenderer(IPythonRenderer):  # type: ignore[misc]
    """Markdown with formulas as MathML."""

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def multiline_math(self, text: str) -> str:
        return _mathml(text, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return _mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")


class _StaticExporter(HTMLExporter):  # type: ignore[misc]
    """nbconvert's page with pictures embedded and formulas drawn."""

    def __init__(self) -> None:
        super().__init__(template_name="lab", embed_images=True)  # type: ignore[no-untyped-call]

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        renderer = _MathRenderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=True,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
        )
        return str(MarkdownWithMath(renderer=renderer).render(source))
