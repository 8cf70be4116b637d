"""Progress of several runs: which is on; what each of them would only repeat is left out."""

from __future__ import annotations

from vpt.cli.progress import ConsoleListener
from vpt.training import EpochMetrics
from vpt.training.job import SeriesListener


class SeriesProgress(ConsoleListener, SeriesListener):
    """One live line per run on a terminal, one plain line per run in a pipe."""

    def run(self, number: int, total: int, method: str, seed: int) -> None:
        self.prefix = f"run {number}/{total}  {method}  seed {seed}  "
        if not self.console.is_terminal:
            self.console.print(self.prefix.strip(), markup=False)

    def decoding(self, part: str, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def epoch(self, epoch: EpochMetrics) -> None:
        pass
