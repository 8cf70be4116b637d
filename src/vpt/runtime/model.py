"""A model in an ONNX file that `vpt export` wrote."""

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.input_files import require_regular_file
from vpt.core.prediction import Prediction
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, SpecError, TunedFileError, VptError
from vpt.runtime.metadata import read_metadata, read_preprocessing
from vpt.runtime.pixels import ImageSource, name_of, read_input
from vpt.runtime.predictions import to_prediction


def open_session(path: str | Path, threads: int | None = None, *, source: str = "FILE") -> tuple[Any, str]:
    """Open a graph of this library in onnxruntime.

    Args:
        path: The file, .onnx.
        threads: Threads of an operation. Default: those of onnxruntime.
        source: What `vpt export` makes such a graph of, for messages. Default: "FILE".

    Returns:
        The session, and what the graph says of itself as JSON.

    Raises:
        TunedFileError: The file is missing, damaged or not one of this library's.
        VptError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise VptError(
            "an exported graph needs onnxruntime, which is not installed: pip install onnxruntime"
        ) from error
    advice = f"`vpt export {source} --out {path}` makes one"
    require_regular_file(Path(path), "graph", advice, TunedFileError)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each kind of damage
        reason = str(error).splitlines()[0]
        raise TunedFileError(f"{path} cannot be read as a graph ({reason:.200}); export it again") from error
    text = session.get_modelmeta().custom_metadata_map.get("vpt")
    if text is None:
        raise TunedFileError(f"{path} is a graph but not one of vpt's; `vpt export {source} --out NAME.onnx` makes one")
    return session, str(text)


def require_positive(**values: object) -> None:
    """Refuse options that have to be at least 1.

    Args:
        **values: The options by name.

    Raises:
        SpecError: A value is not a whole number, or below 1.
    """
    for name, value in values.items():
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)  # also numpy's
        if not is_whole or int(value) < 1:  # type: ignore[call-overload]
            raise SpecError(f"{name} is {value!r}; it must be a whole number of at least 1")


def require_several(images: Iterable[ImageSource]) -> None:
    """Refuse a single image, whose path would be taken for a list of characters.

    Args:
        images: The images.

    Raises:
        SpecError: It is one image.
    """
    if isinstance(images, str | Path | Image.Image):
        raise SpecError("images is one image; give a list of them, such as [image]")


class ExportedModel:
    """A model of one task."""

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        """Open the graph of a model.

        Args:
            path: The file, .onnx.
            threads: Threads of an operation. Default: those of onnxruntime.

        Raises:
            TunedFileError: The file is missing, damaged, or not the graph of one model.
            VptError: onnxruntime is not installed.
        """
        self._session, text = open_session(path, threads)
        inputs = [each.name for each in self._session.get_inputs()]
        if inputs != ["images"]:
            other = "pixels" if inputs == ["pixels"] else "the prompts of a task"
            raise TunedFileError(f"{path} reads {other}; export a graph of one task without --pixels")
        shape = self._session.get_outputs()[0].shape
        if len(shape) != 2:
            raise TunedFileError(f"{path} segments images, which this small runtime does not; give the tuned file")
        num_outputs = shape[1] if isinstance(shape[1], int) else None
        self.metadata: dict[str, Any] = read_metadata(text, path, is_model=True, num_outputs=num_outputs)
        self.preprocessing: Preprocessing = read_preprocessing(self.metadata["preprocessing"])

    def predict(self, images: Iterable[ImageSource], *, top: int = 3, batch_size: int = 32) -> list[Prediction]:
        """Classify images.

        Args:
            images: Paths of images, or Pillow images.
            top: Number of classes to name. Default: 3.
            batch_size: Images in one pass. Default: 32.

        Returns:
            A prediction for each image, in order.

        Raises:
            DataError: An image cannot be used.
            SpecError: `top` or `batch_size` is below 1, or a single image is given.
            TrainingError: Outputs of the model are NaN or infinite.
        """
        return [found for _, found in self.stream(images, top=top, batch_size=batch_size)]

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        top: int = 3,
        batch_size: int = 32,
        on_corrupt: Callable[[DataError], None] | None = None,
    ) -> Iterator[tuple[ImageSource, Prediction]]:
        """Classify images, and yield their predictions batch by batch. Images are read when their batch is due.

        Args:
            images: Paths of images, or Pillow images.
            top: Number of classes to name. Default: 3.
            batch_size: Images in one pass. Default: 32.
            on_corrupt: Called with the error of an image that cannot be used, which is left out. Default: it is raised.

        Returns:
            Iterator over each image with its prediction, in order.

        Raises:
            DataError: An image cannot be used.
            SpecError: `top` or `batch_size` is below 1, or a single image is given.
            TrainingError: Outputs of the model are NaN or infinite.
        """
        require_positive(top=top, batch_size=batch_size)
        require_several(images)
        return self._stream(images, top, batch_size, on_corrupt)

    def _stream(
        self, images: Iterable[ImageSource], top: int, batch_size: int, on_corrupt: Callable[[DataError], None] | None
    ) -> Iterator[tuple[ImageSource, Prediction]]:
        batch: list[tuple[ImageSource, str, NDArray[np.float32]]] = []
        for index, image in enumerate(images):
            try:
                batch.append((image, name_of(image, index), read_input(image, self.preprocessing)))
            except DataError as error:
                if on_corrupt is None:
                    raise
                on_corrupt(error)
            if len(batch) == batch_size:
                yield from self._predict_batch(batch, top)
                batch = []
        if batch:
            yield from self._predict_batch(batch, top)

    def _predict_batch(
        self, batch: list[tuple[ImageSource, str, NDArray[np.float32]]], top: int
    ) -> Iterator[tuple[ImageSource, Prediction]]:
        (logits,) = self._session.run(None, {"images": np.stack([pixels for _, _, pixels in batch])})
        for (image, name, _), row in zip(batch, logits, strict=True):
            yield image, to_prediction(name, row, self.metadata["classes"], self.metadata["label_kind"], top)
