"""Train prompts in a plain PyTorch loop; stop, and continue from a checkpoint of the trainable tensors."""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import vpt
from vpt.data.synthetic.tasks import generate

backbone = vpt.load_backbone("vit_nano_patch12_48")  # its weights are part of the package
images, labels = generate("digits", 240, seed=0)  # uint8 (240, 48, 48, 3), int64 (240,)
inputs = backbone.preprocessing.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
targets = torch.from_numpy(labels)
train_data = TensorDataset(inputs[:160], targets[:160])
test_images, test_labels = inputs[160:], targets[160:]


def train(model: vpt.TunedModel, optimizer: torch.optim.Optimizer, epochs: int) -> float:
    """Return the mean loss of the last epoch."""
    model.train()  # the frozen modules stay in eval mode
    for _ in range(epochs):
        losses = []
        # No `shuffle=True`, so that every example sees the same batches in the same order.
        for batch, classes in DataLoader(train_data, batch_size=32):
            loss = cross_entropy(model(batch), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def start() -> tuple[vpt.TunedModel, torch.optim.Optimizer]:
    """Return an untrained model and its optimizer."""
    torch.manual_seed(0)
    model = vpt.attach(backbone, "vpt(length=4, dropout=0)", num_classes=10)
    return model, torch.optim.AdamW(model.trainable_parameters(), lr=1e-2, weight_decay=1e-4)


model, optimizer = start()
train(model, optimizer, epochs=2)
torch.save({"model": model.trainable_state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.pt")

model, optimizer = start()
checkpoint = torch.load("checkpoint.pt")
model.load_trainable_state_dict(checkpoint["model"])
optimizer.load_state_dict(checkpoint["optimizer"])
loss = train(model, optimizer, epochs=2)

path = vpt.save(model, "pytorch.safetensors")
with torch.inference_mode():
    logits = vpt.load(path, backbone)(test_images)
accuracy = (logits.argmax(1) == test_labels).float().mean().item()
print(f"loss {loss:.5f}, top-1 {accuracy:.2f}, {path.stat().st_size / 1000:.1f} kB in {path}")
