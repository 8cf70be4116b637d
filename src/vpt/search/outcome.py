"""What a search ends with: trained models, and the images that score them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.prepared_data import ClassificationData
from vpt.training import EpochMetrics, Examples
from vpt.training.job import Job


@dataclass(frozen=True)
class Model:
    """A trained model with its job.

    Attributes:
        job: The job.
        data: Its data.
        model: The model.
        history: Metrics of each epoch.
    """

    job: Job
    data: ClassificationData
    model: TunedModel
    history: list[EpochMetrics]


@dataclass(frozen=True)
class Probe:
    """The probe.

    Attributes:
        job: Its job.
        data: The data of the job.
        model: The model.
        left_out: Outputs for its training images, each left out (n, classes), see `vpt.search.trials.outputs_of`.
    """

    job: Job
    data: ClassificationData
    model: TunedModel
    left_out: NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """The images that score the result, with the outputs for them.

    Attributes:
        split: Name of the images: "test", or "out_of_fold".
        source: Images among which they are.
        rows: Their rows there, in the order of the outputs (n,).
        outputs: Outputs of the model that ships (n, classes), see `vpt.search.trials.outputs_of`.
        baseline: Outputs of the probe.
        labels: Labels of the images (n, ...).
        groups: Group of each image (n,), or None if every image is on its own.
    """

    split: str
    source: Examples
    rows: NDArray[np.int64]
    outputs: NDArray[np.float64]
    baseline: NDArray[np.float64]
    labels: NDArray[Any]
    groups: NDArray[np.int64] | None
