"""The explorer: why was this sample misclassified?

run          a finished run: its categories, scores, maps, models
samples      who is on which side of a threshold; filters; counts; two results compared
maps         the maps of one image: kept, or made by its model
view         words over a figure: what the page shows and an export holds
figures      one function a view: threshold, samples, image, pixel, two results
words        what the views say
notes        what the reader says about a sample, kept beside the run
prepare      what a folder of `pni fit` lacks: the maps of its test images
export       a selection as one HTML page
widgets      the views on the screen: JupyterLab, or a page of its own (serve)
"""

from pnilib.apps.explore.run import Category, Exploration, SettingResult, open_exploration

__all__ = ["Category", "Exploration", "SettingResult", "open_exploration"]
