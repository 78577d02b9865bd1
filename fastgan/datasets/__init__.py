"""Data sets: named splits of image rows, found, downloaded, checked and loaded by name.

Where to look: ``registry.py`` has the list of names; ``dataset.py`` what a loaded data set is; ``idx.py`` (MNIST and
Fashion-MNIST), ``cifar.py``, ``tfd.py``, ``digits.py`` and ``user_file.py`` one format each; ``folders.py`` the places
that are searched; ``download.py`` the downloader.
"""

from fastgan.datasets.dataset import Dataset, FileCheck, Progress, Split, normalise_contrast
from fastgan.datasets.folders import cache_folder
from fastgan.datasets.registry import REGISTRY, Entry, entry, fetch, find, load, names, verify
from fastgan.datasets.tfd import NUM_FOLDS
from fastgan.datasets.user_file import load_user_file, read_images

__all__ = [
    "NUM_FOLDS",
    "REGISTRY",
    "Dataset",
    "Entry",
    "FileCheck",
    "Progress",
    "Split",
    "cache_folder",
    "entry",
    "fetch",
    "find",
    "load",
    "load_user_file",
    "names",
    "normalise_contrast",
    "read_images",
    "verify",
]
