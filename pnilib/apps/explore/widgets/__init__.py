"""The explorer as ipywidgets: `explore(run)` in a notebook's cell."""

from pnilib.apps.explore.widgets.app import Explorer, explore, page

__all__ = ["Explorer", "explore", "page"]
