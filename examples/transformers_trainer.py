"""Train prompts with transformers.Trainer; stop, and continue from a checkpoint with only the trainable tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

import vpt
from vpt.data.synthetic.tasks import generate

backbone = vpt.load_backbone("vit_nano_patch12_48")  # its weights are part of the package
images, labels = generate("digits", 240, seed=0)  # uint8 (240, 48, 48, 3), int64 (240,)
inputs = backbone.preprocessing.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
targets = torch.from_numpy(labels)
train_data = [{"images": inputs[i], "labels": targets[i]} for i in range(160)]
test_images, test_labels = inputs[160:], targets[160:]


class Classifier(nn.Module):
    """A tuned model that computes its loss, as `Trainer` expects."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = vpt.attach(backbone, "vpt(length=4, dropout=0)", num_classes=10)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(images)
        return {"loss": cross_entropy(logits, labels), "logits": logits}

    # `Trainer` writes to a checkpoint what `state_dict` returns. The frozen backbone need not be there.
    def state_dict(self, **_: Any) -> dict[str, Any]:
        return self.model.trainable_state_dict()

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        self.model.load_trainable_state_dict(state)
        return nn.Identity().load_state_dict({})  # `Trainer` asks which keys were missing or unexpected: none


def trainer(epochs: int) -> Trainer:
    """Return a trainer of a new classifier."""
    classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.model.trainable_parameters(), lr=1e-2, weight_decay=1e-4)
    options = TrainingArguments(
        "transformers",
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        train_sampling_strategy="sequential",  # so that every example sees the same batches in the same order
        save_strategy="epoch",
        logging_strategy="epoch",  # the mean loss over the epoch
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    return Trainer(classifier, options, train_dataset=train_data, optimizers=(optimizer, None))


trainer(epochs=2).train()
resumed = trainer(epochs=4)
resumed.train(resume_from_checkpoint=True)
model, loss = resumed.model.model, resumed.state.log_history[-2]["loss"]

path = vpt.save(model, "transformers.safetensors")
with torch.inference_mode():
    logits = vpt.load(path, backbone)(test_images)
accuracy = (logits.argmax(1) == test_labels).float().mean().item()
print(f"loss {loss:.5f}, top-1 {accuracy:.2f}, {path.stat().st_size / 1000:.1f} kB in {path}")
