"""Folds of cross-validation: stratified by class, with groups of images kept whole."""

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import bullets, describe_counts
from vpt.data.dataset import Split
from vpt.errors import DataError, SpecError


def assign_folds(images: Split, classes: tuple[str, ...], folds: int, seed: int) -> NDArray[np.int64]:
    """Assign each image to a fold, as scikit-learn's `StratifiedKFold` or, with groups, `StratifiedGroupKFold`.

    Args:
        images: The images.
        classes: Names of the classes.
        folds: Number of folds, at least 2.
        seed: Seed of the assignment.

    Returns:
        Number of the fold of each image, int64 (n,).

    Raises:
        SpecError: There is less than two folds.
        DataError: A class has fewer images, or groups of them, than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow import

    if folds < 2:
        raise SpecError(f"folds is {folds}; cross-validation needs at least 2")
    counts = images.group_counts(len(classes))
    few = {classes[k]: int(counts[k]) for k in np.flatnonzero((counts > 0) & (counts < folds))}
    if few:
        unit = "image" if images.groups is None else "group"
        raise DataError(
            f"classes with fewer {unit}s than the {folds} folds:{bullets(describe_counts(few, unit))}\n"
            "add images, or give fewer --folds"
        )
    splitter = (StratifiedKFold if images.groups is None else StratifiedGroupKFold)(
        folds, shuffle=True, random_state=seed
    )
    assigned = np.zeros(len(images), np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(assigned, images.labels, images.groups)):
        assigned[held_out] = fold
    return assigned
