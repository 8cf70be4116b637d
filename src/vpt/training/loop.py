"""The training loop that every task shares."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.attention.fused import without_fused_attention
from vpt.errors import SpecError, TrainingError, TunedFileError
from vpt.model.tuned_model import TunedModel
from vpt.training import distributed
from vpt.training.batches import iter_batches, join_last
from vpt.training.block_rates import block_lr_scales
from vpt.training.callbacks import Callback, EpochMetrics
from vpt.training.checkpoint import load_checkpoint, save_checkpoint
from vpt.training.config import TrainingConfig
from vpt.training.kept_weights import KeptWeights
from vpt.training.layer_decay import layer_lr_scales
from vpt.training.task_config import TaskConfig

_MOST_TOKENS = 400  # of attention whose weights are kept in memory, which grow with their square


class Objective(Protocol):
    """The task that a model is trained for: its batches, its loss, and its validation."""

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Return the batches of an epoch. They depend on the seed and the epoch alone.

        Args:
            epoch: Number of the epoch, from 0.

        Returns:
            The indices of the examples of each step.
        """

    def plan(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> None:
        """Receive what `loss` is called with in an epoch, so that images can be loaded in advance.

        Args:
            epoch: Number of the epoch, from 0.
            batches: The indices of the examples of each call, in order.
        """

    def loss(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, float]:
        """Return the loss of some examples.

        Args:
            indices: Indices of the examples.
            rng: Random generator of augmentation.

        Returns:
            The sum of the losses, a scalar with a gradient, and the sum of the training metric.
        """

    @property
    def metric(self) -> str:
        """Name of the metric that `loss` sums."""

    @property
    def has_val(self) -> bool:
        """True if there are validation examples."""

    def validate(self) -> tuple[float, dict[str, float]] | None:
        """Return the loss and the metrics on validation examples, or None without any.

        The first metric counts. That of `loss` is one of them.
        """


def fit(
    model: TunedModel,
    objective: Objective,
    config: TaskConfig,
    *,
    checkpoint: Path | None = None,
    callback: Callback | None = None,
) -> list[EpochMetrics]:
    """Train the trainable parameters of a model.

    With a checkpoint, an interrupted run resumes from its last epoch. On the CPU its result is bit-identical to that of
    an uninterrupted run.

    Args:
        model: The model, on its device.
        objective: The objective.
        config: The configuration.
        checkpoint: File that is written after each epoch, and resumed from if it exists. Default: no checkpoint.
        callback: Receiver of progress. Default: none.

    Returns:
        The metrics of each epoch.

    Raises:
        TrainingError: The loss is NaN or infinite: that of a step or on val, or on the last batch after the last step.
        SpecError: Batches of one image cannot train the batch normalization of the model, or validation images are
            missing that decide which weights are kept, or `layer_decay` or `block_rates` has no meaning for the method.
        TunedFileError: The checkpoint is damaged, or of another configuration or method.
    """
    callback = callback or Callback()
    training, parameters = config.training, model.trainable_parameters()
    named = {name: tensor for name, tensor in model.trainable_state_dict().items() if isinstance(tensor, nn.Parameter)}
    lr_scales = layer_lr_scales(model, training.layer_decay) if training.layer_decay < 1 else None
    if training.block_rates is not None:
        lr_scales = block_lr_scales(model, training.block_rates)
    optimizer = training.make_optimizer(named, list(model.head.parameters()), lr_scales)
    kept = KeptWeights(model, config)
    if training.needs_val and not objective.has_val:
        option = f"patience is {training.patience}" if training.patience else "keep is 'best'"
        raise SpecError(
            f"{option}, and there are no validation images to decide on, as test images never may; leave it out, or "
            "have a val split (val_fraction above 0, train_on 'train')"
        )
    device = next(model.parameters()).device
    has_slow_fusion = device.type == "cpu" and training.use_bf16(device) and 0 < model.layout.num_tokens <= _MOST_TOKENS
    attention = partial(without_fused_attention, model) if has_slow_fusion else nullcontext
    history: list[EpochMetrics] = []
    if checkpoint is not None and checkpoint.exists():
        progress, states = load_checkpoint(checkpoint, model, optimizer, *kept.states)
        earlier = {**type(config)().to_dict(), "decay": "all"}  # what earlier versions did, which lacked some options
        if {**earlier, **progress["config"]} != config.to_dict():
            raise TunedFileError(
                f"the checkpoint {checkpoint} was written with another configuration, {progress['config']}; go on with "
                "that one, or delete it to begin anew"
            )
        if progress["crop_version"] != config.crop_version:
            raise TunedFileError(
                f"the checkpoint {checkpoint} is of a version of vpt that drew other random crops (way "
                f"{progress['crop_version']}, and {config.crop_version} now); begin anew with --overwrite, or delete it"
            )
        history = [EpochMetrics(**record) for record in progress["history"]]
        kept.load_state_dicts(states)

    model.train()
    min_size = 2 if _trains_batch_norm(model) else 1
    sizes = [len(indices) for indices in join_last(objective.batches(0), min_size)]
    steps_per_epoch, lr_factor = len(sizes), training.lr_factor(max(sizes))
    num_steps = steps_per_epoch * config.num_epochs
    callback.on_train_start(config, steps_per_epoch, history)
    for epoch in range(len(history), config.num_epochs):
        if kept.ends_training(history):
            break
        start_time = time.perf_counter()
        model.train()
        # Dropout draws from here: a function of seed, epoch and process, so that an epoch can be repeated.
        torch.manual_seed(epoch_seed(training.seed, epoch, distributed.rank()))
        rng = np.random.default_rng((training.seed, epoch, 1 + distributed.rank()))
        total_loss, total_metric, num_seen, lr = 0.0, 0.0, 0, 0.0
        steps = join_last(objective.batches(epoch), min_size)
        micro_batches = [_micro_batches(indices, training.grad_accum_steps, min_size) for indices in steps]
        objective.plan(epoch, list(chain.from_iterable(micro_batches)))
        for step, indices in enumerate(steps):
            lr = lr_factor * config.lr_at(epoch * steps_per_epoch + step, num_steps, steps_per_epoch)
            training.set_lr(optimizer, lr)
            with attention():
                loss_sum, metric_sum = _backward(model, objective, micro_batches[step], len(indices), min_size, rng)
            distributed.all_reduce_gradients(parameters)
            loss = distributed.all_reduce_sum(loss_sum) / len(indices)
            if not math.isfinite(loss):
                raise divergence_error(loss, epoch, step, steps_per_epoch, lr, training)
            steps_done = epoch * steps_per_epoch + step + 1
            model.before_step(steps_done / num_steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            kept.end_step(steps_done)
            total_loss += loss * len(indices)
            total_metric += distributed.all_reduce_sum(metric_sum)
            num_seen += len(indices)
            callback.on_step(epoch + 1, step + 1, loss, lr)
        train_loss, train_metric = total_loss / num_seen, total_metric / num_seen
        with kept.applied():
            val_loss, scores = (config.validates_after(epoch) and objective.validate()) or (None, {})
            name, end_loss = "loss on val", val_loss
            if val_loss is None and epoch + 1 == config.num_epochs:
                name, end_loss = "loss on the last batch", _loss_without_step(model, objective, micro_batches[-1], rng)
        if end_loss is not None and not math.isfinite(end_loss):  # the last step may have destroyed the weights
            raise divergence_error(end_loss, epoch, steps_per_epoch - 1, steps_per_epoch, lr, training, name=name)
        seconds, val_metric = time.perf_counter() - start_time, next(iter(scores.values()), None)
        metrics = {f"train_{objective.metric}": train_metric, **{f"val_{name}": x for name, x in scores.items()}}
        history.append(EpochMetrics(epoch + 1, train_loss, train_metric, val_loss, val_metric, lr, seconds, metrics))
        kept.end_epoch(history)
        if checkpoint is not None and distributed.rank() == 0:
            records = [asdict(record) for record in history]
            progress = {"config": config.to_dict(), "crop_version": config.crop_version, "history": records}
            save_checkpoint(checkpoint, model, optimizer, progress, **kept.state_dicts())
        callback.on_epoch(history[-1])
    kept.finish(history, config.num_epochs, callback)
    model.eval()
    return history


def _micro_batches(indices: NDArray[np.int64], grad_accum_steps: int, min_size: int) -> Sequence[NDArray[np.int64]]:
    """Return the micro-batches of this process's shard of a batch."""
    shard = distributed.local_shard(indices)
    micro_batches = list(iter_batches(shard, max(1, math.ceil(len(shard) / grad_accum_steps))))
    return join_last(micro_batches, min_size)


def _trains_batch_norm(model: TunedModel) -> bool:
    """Return True if the backbone may fail on a batch of one image, as one value has no variance. Heads do not."""
    head = set(model.head.modules())
    layers = (layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
    return any(layer.training and layer not in head for layer in layers)


def _backward(
    model: TunedModel,
    objective: Objective,
    micro_batches: Sequence[NDArray[np.int64]],
    batch_size: int,
    min_size: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Add the gradient of this process's micro-batches of a batch to the parameters.

    Each micro-batch adds its share of the method's penalty, so that over the micro-batches of all processes the penalty
    is added once to the mean loss of a batch. Return the sums of the losses, penalty included, and of the metric.
    """
    loss_sum, metric_sum = 0.0, 0.0
    for micro_batch in micro_batches:
        try:
            loss, metric = objective.loss(micro_batch, rng)
        except ValueError as error:
            if len(micro_batch) > 1 or min_size == 1:
                raise
            raise SpecError(
                f"a batch of one image cannot train batch normalization ({error}); give at least two images for each "
                "micro-batch and process: a larger --batch-size, or a smaller --grad-accum-steps"
            ) from error
        penalty = model.penalty()
        if penalty is not None:
            loss = loss + penalty * len(micro_batch)
        (loss / batch_size).backward()
        loss_sum += loss.item()
        metric_sum += metric
    return loss_sum, metric_sum


@torch.no_grad()
def _loss_without_step(
    model: TunedModel, objective: Objective, micro_batches: Sequence[NDArray[np.int64]], rng: np.random.Generator
) -> float:
    """Return the sum of the losses of every process's last micro-batch, with the weights as they are."""
    model.eval()  # which leaves running statistics alone
    losses = (objective.loss(micro_batch, rng)[0].item() for micro_batch in micro_batches[-1:])
    return distributed.all_reduce_sum(sum(losses))


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Return the seed of torch's generator for an epoch.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        rank: Rank of the process.

    Returns:
        A number of 63 bits.
    """
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)[0]) >> 1


def divergence_error(
    loss: float, epoch: int, step: int, num_steps: int, lr: float, training: TrainingConfig, *, name: str = "loss"
) -> TrainingError:
    """Return the error for a loss that is NaN or infinite.

    Args:
        loss: The loss.
        epoch: Number of the epoch, from 0.
        step: Number of the step within the epoch, from 0.
        num_steps: Number of steps of an epoch.
        lr: Learning rate of the step.
        training: The configuration.
        name: Name of the loss. Default: that of training.

    Returns:
        The error, whose message has advice.
    """
    rate, batch = training.learning_rate, training.batch_size
    return TrainingError(
        f"the {name} became {loss} in epoch {epoch + 1}, step {step + 1} of {num_steps}, at a learning rate "
        f"of {lr:.3g} (learning_rate {rate:g}); try learning_rate {rate / 10:g}, with batch_size {batch} as here, or a "
        "longer warm-up"
    )
