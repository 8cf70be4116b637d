"""Progress of several runs, without what each of them would repeat."""

from __future__ import annotations

from vpt.api.progress import ConsoleCallback
from vpt.training import EpochMetrics


class SeriesProgress(ConsoleCallback):
    """One live line per run on a terminal, one plain line per run in a pipe."""

    def on_run_start(self, index: int, total: int, label: str, seed: int) -> None:  # noqa: D102
        self.prefix: str = f"run {index}/{total}  {label}  seed {seed}  "
        if not self.console.is_terminal:
            self.console.print(self.prefix.strip(), markup=False)

    def on_data_progress(self, split: str, done: int, total: int) -> None:  # noqa: D102
        pass

    def on_note(self, text: str) -> None:  # noqa: D102
        pass

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        pass
