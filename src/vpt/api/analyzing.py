"""The calls that look into a tuned model."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from vpt.analysis import attention_maps, embeddings, occlusion
from vpt.analysis.attention_maps import Explanation
from vpt.analysis.embedding_page import write_page
from vpt.analysis.embeddings import Embedding
from vpt.analysis.explanation_grid import draw_grid
from vpt.analysis.features import FeatureFile, write_features
from vpt.analysis.occlusion import Occlusion
from vpt.api.models import Data, Device, Model, SplitName, open_model, scored_data, show_progress
from vpt.api.outputs import require_other_files, require_outside_data
from vpt.data.dataset import Split
from vpt.data.images.inputs import ImageInput
from vpt.data.loading import load_scored_dataset
from vpt.errors import SpecError
from vpt.plots.canvas import check_plot_path
from vpt.training import Callback


def explain(
    model: Model,
    image: ImageInput,
    *,
    block: int | None = None,
    out: str | Path | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
) -> Explanation:
    """Compare the attention of a tuned model with that of its frozen backbone, on one image.

    Attention shows which tokens a block reads. It does not show which of them decide the prediction; `occlude` does.

    Args:
        model: The tuned file, or a model that `vpt.load` or `vpt.attach` returned.
        image: A path, the bytes of an image file, a Pillow image, an array or a tensor, as for `predict`.
        block: Number of the block, from 1. Default: the last.
        out: Picture to draw, .png or .svg. Default: none is drawn.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".

    Returns:
        Attention maps (h, w) in patches, with the prediction.

    Raises:
        SpecError: There is no such block, or `out` is neither .png nor .svg, or is the image itself.
        UnsupportedError: The backbone is no plain transformer, or the model segments or predicts a number.
        DataError: The image cannot be read.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    _check_picture(out, image)
    explanation = attention_maps.explain(open_model(model, backbone, weights, device), image, block)
    if out is not None:
        attention_maps.draw(explanation, Path(out))
    return explanation


def occlude(
    model: Model,
    image: ImageInput,
    *,
    out: str | Path | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
) -> Occlusion:
    """Measure how much less probable the most likely class of an image becomes where a square of it is covered.

    It works with every backbone, and runs the model on 122 images: the image itself, and 121 with a covered square.

    Args:
        model: The tuned file, or a model that `vpt.load` or `vpt.attach` returned.
        image: A path, the bytes of an image file, a Pillow image, an array or a tensor, as for `predict`.
        out: Picture to draw, .png or .svg. Default: none is drawn.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".

    Returns:
        The drops of the probability (cells, cells), with the prediction.

    Raises:
        SpecError: `out` is neither .png nor .svg, or is the image itself.
        UnsupportedError: The model segments, or predicts a number.
        DataError: The image cannot be read.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    _check_picture(out, image)
    found = occlusion.occlude(open_model(model, backbone, weights, device), image)
    if out is not None:
        name = str(image) if isinstance(image, str | Path) else "image"
        draw_grid({name: found}, Path(out))
    return found


def _check_picture(out: str | Path | None, image: ImageInput) -> None:
    """Raise SpecError where the picture has no suffix of one, or would replace the image."""
    if out is not None:
        check_plot_path(Path(out))
        if isinstance(image, str | Path) and Path(out).exists() and Path(image).exists() and Path(out).samefile(image):
            raise SpecError(f"out is {out}, the image itself, which would be lost; choose another name")


def embed(
    model: Model,
    data: Data,
    *,
    split: SplitName = "test",
    classes: Sequence[str] | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    limit: int = 2000,
    skip_corrupt: bool = False,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    progress: bool = False,
    callback: Callback | None = None,
) -> Embedding:
    """Lay out the features of labeled images in two dimensions (t-SNE), before and after tuning.

    Args:
        model: The tuned file, or a model that `vpt.load` or `vpt.attach` returned.
        data: As for `evaluate`.
        split: "train", "val" or "test". Default: "test".
        classes: Names of the classes of data in memory. Default: those of the data, or those of the model.
        out: Picture to draw, .png or .svg, or page, .html, that shows the images, too; the points are written beside it
            as .csv. Default: nothing is written.
        seed: Seed of the layout and of the choice of images. Default: 0.
        limit: Maximal number of images. Default: 2000.
        skip_corrupt: True leaves unreadable images out. Default: False.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".
        progress: True shows progress in a terminal or a notebook. Default: False.
        callback: Receiver of events. Default: none.

    Returns:
        The points (n, 2) before and after tuning, with labels and classes.

    Raises:
        DataError: The split has fewer than 5 images, or images cannot be used.
        UnsupportedError: The model segments.
        SpecError: `out` is neither .png, .svg nor .html, or it or the table beside it is a file that is read, lies
            among the images, or replaces a table that this function has not written.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    if out is not None:
        check_plot_path(Path(out), ".html")
        table = Path(out).with_suffix(".csv")
        require_other_files((Path(out), table), (model, weights))
        require_outside_data((Path(out), table), data)
        embeddings.check_table(table)
    is_page = out is not None and Path(out).suffix.casefold() == ".html"
    tuned = open_model(model, backbone, weights, device)
    tuned.require_classifier("embed")
    source, split_options = scored_data(model, tuned, data, split, classes)
    dataset = load_scored_dataset(source, split, **split_options)
    with show_progress(progress, callback) as receiver:
        on_image = partial(receiver.on_data_progress, split)
        embedding = embeddings.embed(
            tuned, dataset, split, seed=seed, limit=limit, thumbnails=is_page, skip_corrupt=skip_corrupt,
            on_image=on_image, on_note=receiver.on_note,
        )  # fmt: skip
    if out is not None:
        embeddings.write_table(embedding, Path(out).with_suffix(".csv"))
        draw = write_page if is_page else embeddings.draw
        draw(embedding, Path(out))
    return embedding


def embed_to_file(
    model: Model,
    data: Data,
    out: str | Path,
    *,
    split: SplitName | Literal["all"] = "test",
    classes: Sequence[str] | None = None,
    skip_corrupt: bool = False,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    progress: bool = False,
    callback: Callback | None = None,
) -> FeatureFile:
    """Write the features of labeled images to a table with the columns path, label, split and feature.

    A feature is what the head reads, `model.features` of the image.

    Args:
        model: The tuned file, or a model that `vpt.load` or `vpt.attach` returned.
        data: As for `evaluate`.
        out: The table: .csv, .jsonl, .parquet or .npz. It appears at the end, whole.
        split: "train", "val", "test", or "all" of them, one after the other. A folder without splits and without images
            of the training is test. Default: "test".
        classes: Names of the classes of data in memory. Default: those of the data, or those of the model.
        skip_corrupt: True leaves unreadable images out. Default: False.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".
        progress: True shows progress in a terminal or a notebook. Default: False.
        callback: Receiver of events. Default: none.

    Returns:
        The table, with its number of rows.

    Raises:
        DataError: The split is empty, or images cannot be used.
        UnsupportedError: The model segments.
        SpecError: The suffix of `out` is unknown, or it is a file that is read, or lies in a folder of images.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    require_other_files((Path(out),), (model, weights))
    require_outside_data((Path(out),), data)
    tuned = open_model(model, backbone, weights, device)
    tuned.require_classifier("vpt.embed_to_file")
    source, split_options = scored_data(model, tuned, data, split, classes)
    with show_progress(progress, callback) as receiver:
        dataset = load_scored_dataset(source, split, on_note=receiver.on_note, **split_options)
        splits: dict[str, Split] = dataset.splits if split == "all" else {split: dataset.splits[split]}
        on_image = partial(receiver.on_data_progress, split)
        return write_features(
            tuned, splits, dataset.classes, Path(out), on_image, skip_corrupt=skip_corrupt, on_note=receiver.on_note
        )
