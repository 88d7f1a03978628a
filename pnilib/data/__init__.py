"""Data sets: one table of samples, whatever the layout on disk."""

from pnilib.data.dataset import DATASETS, Dataset, Split, list_categories, load_dataset

__all__ = ["DATASETS", "Dataset", "Split", "list_categories", "load_dataset"]
