"""Temperature scaling: probabilities that hold (Guo et al., 2017)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def fit_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """Return the temperature that gives the lowest cross-entropy, by L-BFGS.

    Args:
        logits: Logits (n, classes) of images that trained nothing.
        labels: Their classes (n,).

    Returns:
        The number that logits are divided by. None where no finite number above 0 is best: every prediction is right,
        and the loss falls with the temperature; or predictions are no better than chance, and it falls to uniform
        probabilities.
    """
    logits = logits.double()
    true = logits.gather(1, labels[:, None]).squeeze(1)
    # The loss is convex in 1 / temperature; these are its slopes at 0 and at infinity.
    first, last = (logits.mean(1) - true).mean(), (logits.amax(1) - true).mean()
    if not first < 0 < last:
        return None
    unit = logits.std()  # logits of any scale begin at 1
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([inverse], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(logits / unit * inverse, labels)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return float(unit / inverse.detach())
