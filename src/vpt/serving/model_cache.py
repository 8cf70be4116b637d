"""Models of tuned files in memory: those used last."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from vpt.model.tuned_model import TunedModel
from vpt.serving.multi_task import TaskAdapter
from vpt.serving.tuned_files import TaskReplacedError, TunedFile

Model = TaskAdapter | TunedModel


class ModelCache:
    """The most recently used models. It is thread-safe; two threads may read one file at the same time."""

    def __init__(self, size: int, read: Callable[[TunedFile], Model]) -> None:
        """Create an empty cache.

        Args:
            size: Maximum number of models.
            read: Returns the model of a file.
        """
        self._size = size
        self._read = read
        self._models: OrderedDict[TunedFile, Model] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._models)

    def get(self, file: TunedFile) -> Model:
        """Return the model of a file, which is read if it is not in memory.

        Args:
            file: The file.

        Returns:
            The model.

        Raises:
            TaskReplacedError: The file was replaced or removed while it was read.
        """
        with self._lock:
            if file in self._models:
                self._models.move_to_end(file)
                return self._models[file]
        model = self._read(file)
        with self._lock:
            self._models[file] = model
            while len(self._models) > self._size:
                self._models.popitem(last=False)
        try:
            file.check()
        except TaskReplacedError:  # `discard` may have come before the model
            self.discard(file)
            raise
        return model

    def discard(self, file: TunedFile) -> None:
        """Forget the model of a file.

        Args:
            file: The file.
        """
        with self._lock:
            self._models.pop(file, None)
