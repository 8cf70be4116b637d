"""What a user's type checker knows of the calls of `import vpt`. It is checked, not run: mypy --strict, pyright."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import vpt

result = vpt.tune("photos/", out="photos.safetensors", epochs=3, backbone="vit_small_patch16_224", resize="crop")
assert_type(result, vpt.RunResult)
assert_type(result.task, str)
assert_type(result.data, str)
assert_type(result.method, str)
assert_type(result.backbone, str)
assert_type(result.head, str | None)
assert_type(result.eval_split, str)
assert_type(result.metric, str)
assert_type(result.metrics, dict[str, float])
assert_type(result.metrics["test_top1"], float)
assert_type(result.score, float)
assert_type(result.eval_metrics, dict[str, float])
assert_type(result.per_class, dict[str, float | None])
assert_type(result.images, dict[str, int])
assert_type(result.total_parameters, int)
assert_type(result.trainable_parameters, int)
assert_type(result.trainable_fraction, float)
assert_type(result.head_parameters, int | None)
assert_type(result.file, str)
assert_type(result.run_dir, str)
assert_type(result.file_bytes, int)
assert_type(result.seconds, float)
assert_type(result.peak_memory_bytes, int)
assert_type(result.notes, list[str])
assert_type(result.history, list[dict[str, Any]])
assert_type(result.job, dict[str, Any])
assert_type(result.environment, dict[str, Any])


class Photos(torch.utils.data.Dataset[tuple[Image.Image, int]]):
    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        raise IndexError(index)


pixels: NDArray[np.uint8] = np.zeros((8, 48, 48, 3), np.uint8)
image = Image.new("RGB", (48, 48))
assert_type(vpt.tune(Photos(), "a.safetensors", val=Photos(), progress=False), vpt.RunResult)
assert_type(vpt.tune((pixels, np.arange(8)), Path("a.safetensors"), classes=["a", "b"]), vpt.RunResult)
assert_type(vpt.tune({"train": Photos()}, "a.safetensors"), vpt.RunResult)
vpt.tune("photos/", resize="trim")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
vpt.tune("photos/", epoch=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

prediction = vpt.predict(result.file, image, top=5)
assert_type(prediction, vpt.Prediction)
assert_type(prediction.image, str)
assert_type(prediction.label, str)
assert_type(prediction.probability, float)
assert_type(prediction.top, tuple[tuple[str, float], ...])
assert_type(prediction.mask, NDArray[np.uint16] | None)
assert_type(prediction.mask_file, str | None)
assert_type(prediction.overlay_file, str | None)
assert_type(prediction.to_dict(), dict[str, Any])
assert_type(vpt.predict(result.file, b""), vpt.Prediction)
assert_type(vpt.predict(result.file, "new.jpg"), vpt.Prediction | Any)  # a list for a folder
assert_type(vpt.predict(result.file, Path("new.jpg")), vpt.Prediction | Any)
assert_type(vpt.predict(result.file, pixels), vpt.Prediction | Any)
assert_type(vpt.predict(result.file, torch.zeros(3, 48, 48)), vpt.Prediction | Any)
assert_type(vpt.predict(result.file, ["new.jpg", image, pixels[0]]), list[vpt.Prediction])
for found in vpt.predict(vpt.load(result.file), [image], device="cpu", flip=True):
    assert_type(found, vpt.Prediction)

scores = vpt.evaluate(result.file, "photos/", split="val")
assert_type(scores, vpt.Evaluation)
assert_type(scores.split, str)
assert_type(scores.images, int)
assert_type(scores.metrics, dict[str, float])
assert_type(scores.per_class, dict[str, float | None])
assert_type(scores.confusion, NDArray[np.int64])
assert_type(scores.loss, float | None)

explanation = vpt.explain(result.file, "new.jpg", block=3)
assert_type(explanation, vpt.Explanation)
assert_type(explanation.image, NDArray[np.uint8])
assert_type(explanation.prediction, tuple[str, float])
assert_type(explanation.block, int)
assert_type(explanation.query, str)
assert_type(explanation.tuned.attention, NDArray[np.float64])
assert_type(explanation.frozen.rollout, NDArray[np.float64])
assert_type(explanation.tuned.prompts, NDArray[np.float64])
assert_type(explanation.tuned.prefix, float)

occlusion = vpt.occlude(result.file, pixels[0])
assert_type(occlusion, vpt.Occlusion)
assert_type(occlusion.prediction, tuple[str, float])
assert_type(occlusion.drops, NDArray[np.float64])

embedding = vpt.embed(result.file, Photos())
assert_type(embedding, vpt.Embedding)
assert_type(embedding.names, tuple[str, ...])
assert_type(embedding.labels, NDArray[np.int64])
assert_type(embedding.classes, tuple[str, ...])
assert_type(embedding.before.points, NDArray[np.float64])
assert_type(embedding.after.top1, float)

backbone = vpt.load_backbone("vit_small_patch16_224", device="meta")
assert_type(backbone, vpt.Backbone)
assert_type(backbone.module, nn.Module)
assert_type(backbone.name, str)
assert_type(backbone.fingerprint(), str)

model = vpt.attach(backbone, "vpt(length=10)", num_classes=5)
assert_type(model, vpt.TunedModel)
assert_type(model.num_classes, int)
assert_type(model.classes, tuple[str, ...] | None)
assert_type(model.head, nn.Module)
assert_type(model.trainable_state_dict(), dict[str, Tensor])
assert_type(vpt.save(model, "a.safetensors"), Path)

header = vpt.inspect("a.safetensors")
assert_type(header, vpt.Header)
assert_type(header.classes, tuple[str, ...] | None)
assert_type(header.method, str)
assert_type(header.num_classes, int)

assert_type(vpt.DataError("text").exit_code, vpt.ExitCode)
assert_type(vpt.training.TrainingConfig().batch_size, int)
