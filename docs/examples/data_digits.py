"""The handwritten digits that scikit-learn ships: 8x8 pixels, 10 classes, 1797 samples."""

import torch
from samples import Data, Split
from sklearn.datasets import load_digits as load_from_sklearn


def load_digits(seed: int = 0, test_share: float = 0.3) -> Data:
    """Return the digits; a random share of them is the test set."""
    bunch = load_from_sklearn()
    x = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1
    y = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    n_test = round(test_share * len(y))
    test, train = order[:n_test], order[n_test:]
    names = tuple(map(str, range(10)))
    return Data("digits", Split(x[train], y[train]), Split(x[test], y[test]), names)


if __name__ == "__main__":
    print(load_digits())
