"""Data sets: one table of samples, whatever the layout on disk."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pnilib.data.check import Finding, check_dataset
    from pnilib.data.dataset import Dataset, Split, list_categories, load_dataset
    from pnilib.data.download import prepare_dataset
    from pnilib.data.sources import SOURCES
    from pnilib.data.words import DATASETS

__all__ = [
    "DATASETS",
    "SOURCES",
    "Dataset",
    "Finding",
    "Split",
    "check_dataset",
    "list_categories",
    "load_dataset",
    "prepare_dataset",
]
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "check": ["Finding", "check_dataset"],
        "dataset": ["Dataset", "Split", "list_categories", "load_dataset"],
        "download": ["prepare_dataset"],
        "sources": ["SOURCES"],
        "words": ["DATASETS"],
    },
)
