"""Data sets: one table of samples, whatever the layout on disk."""

from pnilib.data.check import Finding, check_dataset
from pnilib.data.dataset import DATASETS, Dataset, Split, list_categories, load_dataset
from pnilib.data.download import SOURCES, prepare_dataset

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
