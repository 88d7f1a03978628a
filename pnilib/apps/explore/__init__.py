"""The explorer: why was this sample misclassified?

run          a finished run: its categories, scores, maps, models
samples      who is on which side of a threshold; filters; counts; two results compared
explanation  why one pixel scores as it does
pictures     thumbnails, maps and overlays as PNG
notes        what the reader says about a sample, kept beside the run
prepare      what a folder of `pni fit` lacks: the maps of its test images
export       a selection as one HTML page
widgets      the same on the screen: JupyterLab, or a page of its own (serve)
"""

from pnilib.apps.explore.run import Category, Exploration, SettingResult, open_exploration

__all__ = ["Category", "Exploration", "SettingResult", "open_exploration"]
