"""Exercises told from a smartwatch: the recordings that the package seglearn ships.

Ten people did sets of seven shoulder exercises with either arm; the watch recorded acceleration
and turning rate at 50 Hz. A sample is a window of two seconds. Three people are only in the test
set, so that accuracy tells how well a network reads people that it has not seen.

Source: Burns et al., arXiv:1802.01489.
"""

from collections.abc import Collection
from importlib.metadata import files

import numpy as np
import torch
from samples import Data, Split
from torch import Tensor

SUBJECTS = tuple(range(1, 11))
TEST_SUBJECTS = (8, 9, 10)
WINDOW = 100


def load_watch(
    test_subjects: Collection[int] = TEST_SUBJECTS,
    train_subjects: Collection[int] | None = None,
    stride: int = WINDOW // 2,
) -> Data:
    """Return windows of shape (6, WINDOW), each channel in units of its spread in training.

    Args:
        test_subjects: people whose windows are the test set.
        train_subjects: people whose windows are trained on; all others if not given.
        stride: samples from one window's start to the next one's in training; windows of the
            test set do not overlap.

    Raises:
        ModuleNotFoundError: seglearn is not installed.
    """
    if train_subjects is None:
        train_subjects = set(SUBJECTS) - set(test_subjects)
    recordings = _recordings()
    train = _windows(recordings, train_subjects, stride)
    test = _windows(recordings, test_subjects, WINDOW)
    mean, spread = train.x.mean((0, 2), keepdim=True), train.x.std((0, 2), keepdim=True)
    train, test = (Split((part.x - mean) / spread, part.y) for part in (train, test))
    return Data("watch", train, test, tuple(map(str, recordings["y_labels"])))


def _recordings() -> dict[str, list[np.ndarray]]:
    """Return ``X`` (each of shape (times, 6)), ``y`` and ``subject``, one per recording."""
    # The file is read without importing seglearn, which needs versions of scikit-learn that may
    # not be there.
    for file in files("seglearn") or ():
        if file.name == "watch_dataset.npy":
            found: dict[str, list[np.ndarray]] = np.load(
                str(file.locate()), allow_pickle=True
            ).item()
            return found
    raise ModuleNotFoundError("the installed seglearn has no watch_dataset.npy")


def _windows(
    recordings: dict[str, list[np.ndarray]], subjects: Collection[int], stride: int
) -> Split:
    x: list[Tensor] = []
    y: list[int] = []
    columns = (recordings[name] for name in ("X", "y", "subject"))
    for signal, label, subject in zip(*columns, strict=True):
        if int(subject) in subjects:
            windows = torch.from_numpy(signal).float().unfold(0, WINDOW, stride)
            x.append(windows)
            y += [int(label)] * len(windows)
    return Split(torch.cat(x), torch.tensor(y))


if __name__ == "__main__":
    print(load_watch())
