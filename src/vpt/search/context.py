"""State that the stages of a search share."""

from dataclasses import dataclass

import torch

from vpt.errors import DataError
from vpt.search.budget import Budget
from vpt.search.decisions import Decisions
from vpt.search.request import SearchRequest
from vpt.training import Callback
from vpt.training.job import Job


@dataclass(frozen=True)
class SearchContext:
    """A search at work.

    Attributes:
        request: What was asked for.
        budget: The budget.
        decisions: Record of the search.
        callback: Receiver of progress and notes.
        device: Device of the models.
    """

    request: SearchRequest
    budget: Budget
    decisions: Decisions
    callback: Callback
    device: torch.device

    def check_images(self, job: Job, digest: str) -> None:
        """Refuse images that have changed since the search was begun.

        Args:
            job: A job on the images.
            digest: Their digest.

        Raises:
            DataError: They have changed.
        """
        if self.decisions.decide("digest", lambda: digest) != digest:
            raise DataError(
                f"the images of {job.data} have changed since {job.run_dir} was begun; give another --out, or "
                "--overwrite"
            )
