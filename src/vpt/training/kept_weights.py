"""The weights that training leaves: those of the last or the best epoch, averaged or not."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from vpt.model.tuned_model import TunedModel
from vpt.training import distributed
from vpt.training.callbacks import Callback, EpochMetrics
from vpt.training.task_config import TaskConfig
from vpt.training.weight_average import WeightAverage


def best_epoch(history: Sequence[EpochMetrics], sign: int = 1) -> int:
    """Return the number of the epoch with the best metric on val, of equals the first. An undefined one is the worst.

    Args:
        history: The metrics of each epoch.
        sign: 1 if more of the metric is better, -1 if less is. Default: 1.

    Returns:
        The number, from 1; 0 without an evaluation on val.
    """
    metrics = {record.epoch: record.val_metric for record in history if record.val_metric is not None}
    scores = {epoch: -math.inf if math.isnan(metric) else sign * metric for epoch, metric in metrics.items()}
    return max(scores, key=scores.__getitem__, default=0)


class KeptWeights:
    """The average of the weights (`ema`), the weights of the best epoch (`keep`), and the end of training (`patience`).

    Attributes:
        states: Their names in checkpoints.
    """

    states: tuple[str, ...] = ("average", "best")

    def __init__(self, model: TunedModel, config: TaskConfig) -> None:
        """Begin at the weights of a model.

        Args:
            model: The model, on its device.
            config: The configuration.
        """
        self._model = model
        self._training = training = config.training
        self._sign = config.metric_sign
        self._average = WeightAverage(model, training.ema) if training.ema else None
        self._best: dict[str, Tensor] = {}

    def state_dicts(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the weights by the names of `states`, {} for those that are not kept."""
        return {"average": {} if self._average is None else self._average.state_dict(), "best": self._best}

    def load_state_dicts(self, saved: Mapping[str, dict[str, Tensor]]) -> None:
        """Go on from saved weights.

        Args:
            saved: The weights of `state_dicts`.
        """
        if self._average is not None:
            self._average.load_state_dict(saved["average"])
        self._best = saved["best"]

    def end_step(self, step: int) -> None:
        """Take the weights of a step into the average.

        Args:
            step: Number of optimizer steps so far.
        """
        if self._average is not None:
            self._average.update(step)

    def applied(self) -> AbstractContextManager[None]:
        """Let the model have the average, if there is one, within a `with` block."""
        return nullcontext() if self._average is None else self._average.applied()

    def end_epoch(self, history: Sequence[EpochMetrics]) -> None:
        """Keep the weights if the last epoch is the best one on val.

        Args:
            history: The metrics of each epoch.
        """
        metric = history[-1].val_metric
        is_defined = metric is not None and not math.isnan(metric)
        if self._training.keep == "best" and is_defined and best_epoch(history, self._sign) == len(history):
            current = self._model.trainable_state_dict() if self._average is None else self._average.state_dict()
            self._best = {name: tensor.detach().clone() for name, tensor in current.items()}

    def ends_training(self, history: Sequence[EpochMetrics]) -> bool:
        """Return True if the last `patience` evaluations on val were no better than one before.

        Args:
            history: The metrics of each epoch.

        Returns:
            The decision of the first process, which holds for all.
        """
        if not self._training.patience:
            return False
        since_best = sum(record.val_metric is not None for record in history[best_epoch(history, self._sign) :])
        stalled = since_best >= self._training.patience
        return distributed.all_reduce_sum(float(stalled and distributed.rank() == 0)) > 0

    def finish(self, history: Sequence[EpochMetrics], num_epochs: int, callback: Callback) -> None:
        """Give the model the weights that are kept.

        Args:
            history: The metrics of each epoch.
            num_epochs: Number of epochs that were planned.
            callback: Receiver of notes.
        """
        if len(history) < num_epochs:
            patience = self._training.patience
            callback.on_note(
                f"training stopped after epoch {len(history)} of {num_epochs}: {patience} evaluations on val were no "
                f"better than that of epoch {best_epoch(history, self._sign)}"
            )
        if self._training.keep == "best" and not self._best:
            callback.on_note("the metric on val is undefined in every epoch, so none is the best: the last is kept")
        if self._best:
            best = best_epoch(history, self._sign)
            callback.on_note(f"the weights of epoch {best} of {len(history)} are kept, the best on val")
            self._model.load_trainable_state_dict(self._best)
        elif self._average is not None:
            self._model.load_trainable_state_dict(self._average.state_dict())
