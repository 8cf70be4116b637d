"""Train prompts with timm's optimizer factory and its cosine schedule with warmup, updated after every batch."""

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import vpt
from vpt.data.synthetic.tasks import generate

backbone = vpt.load_backbone("vit_nano_patch12_48")  # its weights are part of the package
images, labels = generate("digits", 240, seed=0)  # uint8 (240, 48, 48, 3), int64 (240,)
inputs = backbone.preprocessing.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
targets = torch.from_numpy(labels)
test_images, test_labels = inputs[160:], targets[160:]
# No `shuffle=True`, so that every example sees the same batches in the same order.
train_loader = DataLoader(TensorDataset(inputs[:160], targets[:160]), batch_size=32)

torch.manual_seed(0)
model = vpt.attach(backbone, "vpt(length=4, dropout=0)", num_classes=10).train()
optimizer = create_optimizer_v2(model.trainable_parameters(), opt="adamw", lr=1e-2, weight_decay=1e-4)
scheduler, epochs = create_scheduler_v2(
    optimizer,
    sched="cosine",
    num_epochs=4,
    min_lr=1e-5,
    warmup_epochs=1,
    warmup_lr=1e-4,
    step_on_epochs=False,
    updates_per_epoch=len(train_loader),
)

learning_rates = []
for _ in range(epochs):
    losses = []
    for batch, classes in train_loader:
        learning_rates.append(optimizer.param_groups[0]["lr"])
        batch_loss = cross_entropy(model(batch), classes)
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        losses.append(batch_loss.item())
        scheduler.step_update(len(learning_rates))
loss = sum(losses) / len(losses)  # the mean over the last epoch

path = vpt.save(model, "timm.safetensors")
with torch.inference_mode():
    logits = vpt.load(path, backbone)(test_images)
accuracy = (logits.argmax(1) == test_labels).float().mean().item()
print(f"loss {loss:.5f}, top-1 {accuracy:.2f}, {path.stat().st_size / 1000:.1f} kB in {path}")
