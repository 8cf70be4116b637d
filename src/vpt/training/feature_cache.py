"""What is frozen is computed once: all but the head, or all before the first block that changes in training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vpt.core.io import write_atomic
from vpt.errors import DataError
from vpt.methods.linear import Linear
from vpt.model.injection import tensors
from vpt.model.split_forward import Resumed
from vpt.model.tuned_model import TunedModel
from vpt.training.batches import Examples, Feed
from vpt.training.config import Recipe
from vpt.training.evaluation import logits_of

VIEWS = 16  # augmented images whose features are kept, for each one
STEM_LIMIT = 4 * 2**30  # bytes of activations that are kept in memory


def what_must_run(
    model: TunedModel,
    recipe: Recipe,
    *feeds: Feed | None,
    cache: Path | None = None,
    again: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> nn.Module:
    """The part of `model` that has to run each time; what comes before it is computed here, for every feed.

    Where images are not augmented that is the head alone if only the head trains, and else the network from the first
    block on that can change (`again`: the images come more than once). In all other cases it is the model itself, but
    for `resize_crop` where only the head trains: then a few views of each image of the first feed are drawn once.
    cache: a folder that keeps features under a key of the pixels, the preprocessing, the backbone's fingerprint and
    the precision. tell: hears why something frozen is computed again and again.
    """
    some = [feed for feed in feeds if feed is not None]
    bf16 = recipe.autocast_to_bf16(next(model.parameters()).device)
    resumed = None if model.only_head_trains or not again else model.resumed()
    if model.only_head_trains and recipe.augment == "resize_crop" and some:
        first, *others = some  # only what is trained on is augmented
        first.views = views_of(model, first, bf16, cache).to(first.device)
        first.features = first.views[0]
        for feed in others:
            feed.features = features_of(model, feed, bf16, cache).to(feed.device)
        tell(f"the features of {VIEWS} random crops of each image are computed once, and each epoch takes one of them")
        return model.head
    if recipe.augment != "none":
        if model.only_head_trains or resumed is not None:
            tell(f"augment={recipe.augment} makes every image new, so nothing frozen can be computed in advance")
        return model
    if model.only_head_trains:
        for feed in some:
            if feed.features is None:
                feed.features = features_of(model, feed, bf16, cache).to(feed.device)
        return model.head
    if resumed is None or not all(map(len, some)):
        return model
    needed = sum(len(feed) for feed in some) * logits_of(_Entering(resumed), some[0].first(), bf16=bf16).nbytes
    limit = STEM_LIMIT
    if needed > limit:
        tell(
            f"what goes into block {model.first_changed + 1} takes {needed / 2**30:.1f} GiB for all images, more than "
            f"{limit / 2**30:.1f}, so the frozen blocks before it run in every epoch"
        )
        return model
    for feed in some:
        feed.features = logits_of(_Entering(resumed), feed, bf16=bf16).to(feed.device)
    return _FromStem(resumed, model)


def prototypes(model: TunedModel, examples: Examples, *, cache: Path | None = None) -> Tensor:
    """The mean feature of each class under the frozen backbone alone, (classes, d) (paper, section 4.3, "init").

    Raises DataError where a class has no image.
    """
    device = next(model.parameters()).device
    plain = TunedModel(model.backbone, Linear(), model.num_classes).to(device)
    feed = Feed(examples, model.backbone.preprocessing, device)
    features = features_of(plain, feed, False, cache).to(device)
    sums = torch.zeros(model.num_classes, features.shape[1], device=device)
    sums.index_add_(0, feed.labels.to(device), features)
    counts = feed.labels.bincount(minlength=model.num_classes).to(device)
    if not counts.all():
        raise DataError(f"init=prototypes needs an image of every class, and {int((counts == 0).sum())} have none")
    return sums / counts.unsqueeze(1)


def features_of(model: TunedModel, feed: Feed, bf16: bool, cache: Path | None) -> Tensor:
    """What the head reads of every image, (n, d) on the CPU; from `cache`, where it is there, and into it."""
    return _kept(cache, _key(model, feed, bf16), lambda: logits_of(model.network, feed, bf16=bf16))


def views_of(model: TunedModel, feed: Feed, bf16: bool, cache: Path | None) -> Tensor:
    """The same of every image as it is and of `VIEWS` random crops of it, (1 + VIEWS, n, d); alike for all seeds."""

    def view(number: int) -> Tensor:
        rng = np.random.default_rng((number, len(feed)))
        return logits_of(model.network, feed, bf16=bf16, augment="resize_crop", rng=rng)

    key = _key(model, feed, bf16, feed.examples.larger)
    drawn = [_kept(cache, f"{key}-crop{number}", partial(view, number)) for number in range(1, VIEWS + 1)]
    return torch.stack([features_of(model, feed, bf16, cache), *drawn])


def _kept(cache: Path | None, key: str, compute: Callable[[], Tensor]) -> Tensor:
    """Features from the file in `cache` that bears this key, or computed and written there."""
    path = None if cache is None else cache / f"features-{key}.safetensors"
    if path is not None and path.exists():
        try:
            return load_file(path)["features"]
        except (SafetensorError, KeyError):
            pass  # a damaged cache entry is computed and written again
    features = compute()
    if path is not None:
        write_atomic(path, save({"features": features}))
    return features


def _key(model: TunedModel, feed: Feed, bf16: bool, larger: NDArray[np.uint8] | None = None) -> str:
    digest = hashlib.sha256(model.backbone.fingerprint().encode())
    digest.update(json.dumps([model.backbone.preprocessing.as_dict(), bf16], sort_keys=True).encode())
    digest.update(feed.examples.pixels.data)
    if larger is not None:
        digest.update(larger.data)
    if model.hangs_at or model.pools_otherwise:  # what hangs and never trains, such as fixed prompts, is part of it
        digest.update(model.method.spec(full=True).encode())
        heads = {id(tensor) for _, tensor in tensors(model.head)}
        for name, tensor in sorted(model.owned_state().items()):
            if id(tensor) not in heads:
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


class _Entering(nn.Module):
    def __init__(self, resumed: Resumed) -> None:
        super().__init__()
        self.resumed = resumed

    def forward(self, images: Tensor) -> Tensor:
        return self.resumed.enter(images)


class _FromStem(nn.Module):
    def __init__(self, resumed: Resumed, model: TunedModel) -> None:
        super().__init__()
        self.resumed = resumed
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        head = self.model.head
        return head(self.resumed(x).to(next(head.parameters()).dtype))  # type: ignore[no-any-return]
