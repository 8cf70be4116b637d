"""A time budget: what is left of it, what work costs by the clock, and how many images or steps fit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Clock = Callable[[], float]

_USABLE = 0.9  # of the budget; the rest is for what measurements miss
_TEST_SHARE = 0.2  # of the budget at most, for the images that measure the result
_LEAST_SHARE = 0.1  # of the budget at least, for the training images, however late it is
_PROBE_SHARE = 0.5  # of the budget at most, for decoding and the one pass over the training images


@dataclass
class Budget:
    """A budget of seconds from the start of the command on.

    Attributes:
        seconds: The whole budget.
        clock: Function that returns seconds.
        started: Time of the start by that clock.
    """

    seconds: float
    clock: Clock
    started: float = field(default=0.0)

    @property
    def elapsed(self) -> float:
        """Seconds since the start, those of an interrupted command included."""
        return self.clock() - self.started

    @property
    def remaining(self) -> float:
        """Seconds that can still be planned with."""
        return _USABLE * self.seconds - self.elapsed

    def resume(self, elapsed: float) -> None:
        """Count the seconds of an interrupted command.

        Args:
            elapsed: Seconds that it took.
        """
        self.started = self.clock() - elapsed


class Stopwatch:
    """The seconds that a block of code takes, after it has ended."""

    seconds: float = 0.0


@contextmanager
def measure(clock: Clock) -> Iterator[Stopwatch]:
    """Measure a block of code.

    Args:
        clock: Function that returns seconds.

    Yields:
        The stopwatch, which shows the seconds at the end.
    """
    watch, start = Stopwatch(), clock()
    yield watch
    watch.seconds = clock() - start


@dataclass(frozen=True)
class Costs:
    """Seconds of an image.

    Attributes:
        decode: Of decoding it.
        forward: Of a pass through the frozen backbone.
        step: Of a training step, as far as it is known, else an estimate.
    """

    decode: float
    forward: float
    step: float


def images_that_fit(seconds: float, used: float, costs: Costs, train: int, test: int, min_steps_images: int) -> tuple[
    int, int
]:  # fmt: skip
    """Return the numbers of training and of test images that fit into a budget.

    The test images are decoded, and pass through two models. The training images are decoded and pass through the
    frozen backbone once; where one epoch of prompts over enough images fits too, it decides.

    Args:
        seconds: The whole budget.
        used: Seconds that have passed.
        costs: Seconds of an image.
        train: Number of training images at hand.
        test: Number of test images at hand.
        min_steps_images: Images of the fewest training steps that are worth the while.

    Returns:
        The numbers, at most those at hand.
    """
    per_test = costs.decode + 2 * costs.forward
    num_test = min(test, int(_TEST_SHARE * seconds / per_test)) if per_test > 0 else test
    left = max(_LEAST_SHARE * seconds, _USABLE * seconds - used - num_test * per_test)
    per_train = costs.decode + costs.forward
    if per_train <= 0:
        return train, num_test
    for_probe = min(left, _PROBE_SHARE * seconds) / per_train
    with_epoch = left / (per_train + costs.step)
    best = for_probe if with_epoch < min_steps_images else min(for_probe, with_epoch)
    return min(train, max(1, int(best))), num_test
