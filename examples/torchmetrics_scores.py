"""Score a tuned model with torchmetrics: during training on its batches, and at the end on test images."""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

import vpt
from vpt.data.synthetic.tasks import generate

backbone = vpt.load_backbone("vit_nano_patch12_48")  # its weights are part of the package
images, labels = generate("digits", 240, seed=0)  # uint8 (240, 48, 48, 3), int64 (240,)
inputs = backbone.preprocessing.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
targets = torch.from_numpy(labels)
# No `shuffle=True`, so that every example sees the same batches in the same order.
train_loader = DataLoader(TensorDataset(inputs[:160], targets[:160]), batch_size=32)
test_images, test_labels = inputs[160:], targets[160:]
test_loader = DataLoader(TensorDataset(test_images, test_labels), batch_size=32)

torch.manual_seed(0)
model = vpt.attach(backbone, "vpt(length=4, dropout=0)", num_classes=10).train()
optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-2, weight_decay=1e-4)
mean_loss, train_top1 = MeanMetric(), MulticlassAccuracy(10, average="micro")
for epoch in range(4):
    for batch, classes in train_loader:
        outputs = model(batch)
        batch_loss = cross_entropy(outputs, classes)
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        mean_loss.update(batch_loss.detach(), weight=len(classes))
        train_top1.update(outputs.detach(), classes)
    loss = mean_loss.compute().item()
    print(f"epoch {epoch + 1}: loss {loss:.5f}, top-1 {train_top1.compute():.2f}")
    mean_loss.reset()
    train_top1.reset()

path = vpt.save(model, "torchmetrics.safetensors")
loaded = vpt.load(path, backbone)
metrics = MetricCollection(
    {
        "top1": MulticlassAccuracy(10, average="micro"),
        "macro_f1": MulticlassF1Score(10, average="macro"),
        "confusion": MulticlassConfusionMatrix(10),
    }
)
with torch.inference_mode():
    for batch, classes in test_loader:
        metrics.update(loaded(batch), classes)
    logits = loaded(test_images)
scores = metrics.compute()
print(f"top-1 {scores['top1']:.2f}, macro F1 {scores['macro_f1']:.2f}, {len(test_labels)} test images")
