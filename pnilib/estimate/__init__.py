"""What runs will take, before they are started: seconds, memory and disk of a fit, a refinement, a whole grid.

`estimate`: one fit and its scoring.  `estimate_refinement`: what the refinement adds.  `estimate_work` and
`estimate_grid`: many runs, by category.

Nothing here is from the paper but `PAPER_COUNTS`, its data sets' numbers of images.
"""

from pnilib.estimate.counts import PAPER_COUNTS
from pnilib.estimate.detector import Sizes, estimate, sizes
from pnilib.estimate.grid import Grid, Work, estimate_grid, estimate_work
from pnilib.estimate.refinement import estimate_refinement
from pnilib.estimate.stages import Estimate, Free, Stage

__all__ = [
    "PAPER_COUNTS",
    "Estimate",
    "Free",
    "Grid",
    "Sizes",
    "Stage",
    "Work",
    "estimate",
    "estimate_grid",
    "estimate_refinement",
    "estimate_work",
    "sizes",
]
