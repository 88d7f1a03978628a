"""Demo data, drawn by this package: six products with faults that need position or neighborhood.

A plain nearest-neighbor baseline misses the `logical` faults here (wires swapped, a chip turned,
a band out of order): each local patch is normal, only its place or its company is wrong.  That is
the paper's motivation (sec. 1, Figure 1) in a form that needs no download.  Not from the paper.
"""

from pnilib.demo.categories import CATEGORIES, TOLERANCE, Category, Picture, render
from pnilib.demo.writer import GENERATOR_VERSION, make_demo

__all__ = ["CATEGORIES", "GENERATOR_VERSION", "TOLERANCE", "Category", "Picture", "make_demo", "render"]
