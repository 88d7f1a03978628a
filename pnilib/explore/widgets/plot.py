"""plotly's FigureWidget, with its whole state known to whoever opens a view of it later."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import plotly.graph_objects as go

__all__ = ["Plot"]


class Plot(go.FigureWidget):  # type: ignore[misc]
    """plotly sends each change as a message; a page that is opened (or loaded again) afterwards starts from the state
    when the widget was made.  `changes` renews that state as well."""

    @contextmanager
    def changes(self) -> Iterator[None]:
        with self.batch_update():
            yield
        self._widget_layout, self._widget_data = deepcopy(self._layout_obj._props), deepcopy(self._data)
