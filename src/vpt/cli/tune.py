"""`vpt tune`."""

from __future__ import annotations

import shlex
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli import options as common
from vpt.cli.completion import complete_methods
from vpt.cli.lines import echo_line
from vpt.cli.options import TaskCommand, classification, option, own_options, read_config_file, segmentation
from vpt.cli.paths import FILE, FOLDER, TUNED_FILE
from vpt.cli.search_table import print_search
from vpt.cli.values import count_or_all, number_or_word, parse_batch_size

if TYPE_CHECKING:
    from vpt.training.job import RunResult

_MAX_CLASSES = 30  # rows of the table of classes


@click.command(cls=TaskCommand)
@click.argument("data")
@option("--out", "The tuned file to write [default: DATA.safetensors].", FILE)
@option("--config config_file", "Take options from a TOML file, such as the run.toml of an earlier run.", FILE,
        is_eager=True, expose_value=False, callback=read_config_file)  # fmt: skip
@common.task_option
@common.backbone_option("Name of a timm model, or several with commas, of which a search takes the best [default: the "
                        "embedded one, no download].")  # fmt: skip
@common.weights_option
@option("--minutes", "Minutes that a search for the best model may take [default: 10, on a GPU 5, unless another "
        "option turns the search off].", float)  # fmt: skip
@option("--max-size", "A search skips methods of its own choice whose tuned file would have more MB [default: 10].",
        float)  # fmt: skip
@option("--method", 'Method, such as "vpt(length=10, depth=deep)"; `vpt list methods` names all; the first term '
        "of a sum sets its rates [default: vpt; a search tries several].", shell_complete=complete_methods)  # fmt: skip
@option("--head", "Head: linear or multi_block(blocks=last4, features=cls+mean); segmentation: setr_pup, linear or "
        "fpn, with options [default: linear; segmentation: by backbone].")  # fmt: skip
@option("--batch-size", "Images per training step; auto: as many as fit into memory [default: 16 with AdamW and "
        "without --lr, else 64; segmentation: 8].", metavar="[INTEGER|auto]", callback=parse_batch_size)  # fmt: skip
@option("--lr learning_rate", "Learning rate for 256 images per step, scaled to the batch size [default: the "
        "method's].", float)  # fmt: skip
@option("--weight-decay", "Weight decay of the optimizer [default: the method's].", float)
@option("--decay", "Weights that decay. matrices: of two dimensions or more; official: as in the paper's code; all "
        "[default: matrices].", ["matrices", "official", "all"])  # fmt: skip
@option("--optimizer", "Optimizer [default: the method's; segmentation: adamw].", ["sgd", "adamw"])
@option("--head-lr-scale", "Factor of the learning rate for the head [default: 1; with AdamW without --lr, what gives "
        "the head a peak rate of 0.005 or more].", float)  # fmt: skip
@option("--augment", "Random changes of training images, joined by +: flip, vertical_flip, random_crop, "
        "random_resized_crop, trivial_augment, rand_augment, random_erasing, mixup, cutmix; segmentation: full, flip, "
        "vertical_flip [default: none; segmentation: full].")  # fmt: skip
@option("--grad-accum-steps", "Compute each training step in this many parts, to save memory [default: 1].", int)
@option("--activation-checkpointing", "Compute activations again in the backward pass: less memory, about a third more "
        "time.", is_flag=True)  # fmt: skip
@option("--loss", "Loss function. One class for each image: ce or focal; several: bce or focal; a number: l1 or mse; "
        "segmentation: ce, dice or ce+dice; auto: the first of these [default: auto].",
        ["auto", "ce", "focal", "bce", "l1", "mse", "dice", "ce+dice"])  # fmt: skip
@option("--class-weights", "Weights in the loss. balanced: rare classes weigh more; or a number for each class, such "
        "as 1,5 [default: none].")  # fmt: skip
@option("--precision", "Precision of the forward pass; auto: bf16 on GPUs that have it, and in a search on CPUs that "
        "are faster in it [default: auto].", ["auto", "fp32", "bf16"])  # fmt: skip
@option("--layer-decay", "Learning rate of each layer of the backbone, as a fraction of that of the layer after it "
        "[default: 1].", float)  # fmt: skip
@option("--block-rates", "Factors of the learning rate for ranges of blocks of the backbone, such as "
        "stem=0,1-6=0,7-12=0.1 [default: 1 for all].")  # fmt: skip
@option("--ema", "Decay of a moving average of the weights, such as 0.999, which is scored and saved [default: none].",
        float)  # fmt: skip
@option("--patience", "Stop after this many evaluations on val without an improvement [default: never].", int)
@option("--keep", "Save the weights of the last epoch, or of the epoch that is best on val [default: last].",
        ["last", "best"])  # fmt: skip
@option("--seed", "Seed of initialization, order of images, augmentation and dropout [default: 0].", int)
@option("--train-on", "trainval: also train on the validation images.", ["train", "trainval"], default="train")
@option("--val-fraction", "Fraction of each class that is split off as val, if DATA has no val split.", default=0.2)
@common.split_names_option
@option("--split-seed", "Seed for splitting DATA into train, val and test [default: --seed].", int)
@option("--image-size", "Side of the input in pixels; position embeddings are resized to it [default: the backbone's].",
        int)  # fmt: skip
@option("--normalization", "Mean and standard deviation of the input: of the backbone, imagenet, inception, or numbers "
        "such as 0.48,0.46,0.41/0.27,0.26,0.28.", default="backbone")  # fmt: skip
@common.value_range_option
@common.loading_options(option)
@common.skip_corrupt_option
@option("--save-dtype", "Data type in the tuned file; fp16 halves its size.", ["fp32", "fp16"], default="fp32")
@common.device_option
@option("--overwrite", "Discard an earlier run and start from scratch.", is_flag=True)
@option("--logger logger_spec", "Log to: tensorboard[:FOLDER], mlflow[:URI] or wandb[:PROJECT].")
@option("--page", "Keep page.html in the run directory up to date: curves, time left, failure.", is_flag=True)
@common.events_option
@common.json_option
@classification("--epochs", "Passes over the training images [default: a search; without a search: 100].", int)
@classification("--metric", "Metric that epochs and methods are compared by. One class for each image: top1, macro_f1 "
                "or balanced_accuracy; several: map; a number: r2 or mae; auto: the first of these [default: auto].",
                ["auto", "top1", "macro_f1", "balanced_accuracy", "map", "r2", "mae"])  # fmt: skip
@classification("--warmup-epochs", "Epochs in which the learning rate rises to its peak [default: a tenth, at most "
                "10].", float)  # fmt: skip
@classification("--probe-epochs", "First train the head alone for this many epochs, on frozen features [default: 0].",
                int)  # fmt: skip
@classification("--probe-weight-decay", "Weight decay during --probe-epochs [default: 0.01].", float)
@classification("--val-interval", "Epochs between evaluations on val [default: 1].", int)
@classification("--label-smoothing", "Label smoothing factor, as in `torch.nn.CrossEntropyLoss` [default: 0].", float)
@classification("--balanced-sampling", "Sample all classes equally often, with replacement.", is_flag=True)
@classification("--test-fraction", "Fraction of each class that is split off as test, if DATA has no test split.",
                default=0.2)  # fmt: skip
@classification("--folds", "Cross-validation with this many folds: each image is scored by a model that did not train "
                "on it. The file is then trained on all images. Not with --test-fraction, --val-fraction, --train-on.",
                click.IntRange(min=2))  # fmt: skip
@classification("--calibrate", "After training, scale the probabilities to fit the val images (temperature scaling).",
                is_flag=True)  # fmt: skip
@classification("--init", "Continue training from this tuned file, with more images or new classes.", TUNED_FILE)
@classification("--train-fraction", "Train on this fraction of each class.", default=1.0)
@classification("--images-per-class", "Train on at most this many images of each class [default: all].", int)
@classification("--resize", "Squash images to a square, or crop their center.", ["squash", "crop"], default="squash")
@classification("--crop-fraction", "Side of the crop of `--resize crop`, as a fraction of the image's short side "
                "[default: the backbone's].", float)  # fmt: skip
@classification("--interpolation", "Interpolation where images are resized [default: the backbone's].",
                ["nearest", "bilinear", "bicubic", "lanczos"])  # fmt: skip
@classification("--cache", "Folder that keeps decoded images and frozen features for later runs [default: none].",
                FOLDER)  # fmt: skip
@classification("--ridge", "Penalty of a second head, solved by ridge regression and averaged with the trained head. "
                "auto: selected by the training images; none: no such head [default: auto, if possible].",
                number_or_word, metavar="NUMBER|auto|none")  # fmt: skip
@common.table_options
@segmentation("--iterations", "Training steps [default: a search; without a search: 2000].", int)
@segmentation("--eval-every", "Steps between evaluations on val [default: 200].", int)
@segmentation("--warmup-iterations", "Steps in which the learning rate rises to its peak [default: 0].", int)
@segmentation("--power", "Exponent of the polynomial decay of the learning rate [default: 0.9].", float)
@segmentation("--auxiliary-weight", "Weight of the loss of auxiliary heads [default: 0.4].", float)
@segmentation("--lda", "Solve a `linear` head by linear discriminant analysis of this many training images, instead of "
              "training it [default: train it].", count_or_all, metavar="NUMBER|all")  # fmt: skip
@common.mask_options
@segmentation("--val-as-test", "Use val as the test split, and split another val off train.", is_flag=True)
def command(
    data: str,
    task: str,
    device: str,
    overwrite: bool,
    logger_spec: str | None,
    page: bool,
    events: Path | None,
    as_json: bool,
    minutes: float | None,
    metric: str | None,
    max_size: float | None,
    method: str | None,
    **options: Any,
) -> None:
    """Adapt a frozen backbone to DATA and write one small file.

    DATA is a folder of class folders (with or without train/val/test), tables of labels (labels.csv or
    train.csv,test.csv; also JSON Lines and Parquet), a folder with VTAB list files, a folder of images/ and masks/ (or
    laid out like CamVid, ADE20K, Cityscapes, VOC), or a built-in task (`vpt list tasks`).
    Without --epochs, --iterations, --lr, --folds, --init, --lda and --ridge (a number or auto), the command searches
    for the best model within --minutes: first a probe of the frozen backbone, then prompts and other methods. If
    training is interrupted, run the same command again to resume.

    \b
    vpt tune photos/ --out photos.safetensors
    vpt tune labels.csv --out photos.safetensors
    vpt tune photos/ --minutes 3 --backbone vit_small_patch16_224.augreg_in21k
    vpt tune photos/ --backbone vit_base_patch16_224.augreg_in21k --method "vpt(length=50)" --epochs 30
    vpt tune photos/ --method linear --out probe.safetensors --json
    vpt tune --config photos.run/run.toml --out again.safetensors
    """
    started = time.monotonic()
    from vpt.api.progress import ConsoleCallback
    from vpt.backbones import DEFAULT
    from vpt.cross_validation import cross_validate
    from vpt.search import SearchRequest, run_search, wants_search
    from vpt.tasks.registry import find_task
    from vpt.tasks.training_page import follow_on_page
    from vpt.training import CallbackList, distributed
    from vpt.training.events import open_events
    from vpt.training.loggers import log_job
    from vpt.training.verdicts import judge_result
    from vpt.tuning import make_job, run_job

    if events is not None and events.absolute().parent.suffix == ".run":
        raise click.UsageError(f"--events {events} lies in a run directory, where only `vpt tune` writes; move it out")
    distributed.init_process_group()
    task, is_main = find_task(task, data, options).name, distributed.rank() == 0
    options = own_options(options, task, data)
    follow = follow_on_page if page and is_main else lambda callback, job: nullcontext(callback)
    with ConsoleCallback() as console, open_events(events) as event_writer:
        callbacks = CallbackList([console, event_writer])
        if wants_search(minutes, options, max_size):
            asked: dict[str, Any] = {"minutes": minutes, "metric": metric, "max_size": max_size, "method": method}
            target = distributed.resolve_device(device)
            request = SearchRequest.create(data, device=target, task=task, **asked, **options)
            job = request.job(request.backbones[0], method or "vpt")
            logger = log_job(callbacks, logger_spec if is_main else None, job, searches=True)
            with logger as logged, follow(logged, job) as callback:
                result = run_search(request, callback, overwrite=overwrite, device=device, started=started)
        else:
            is_auto = options["batch_size"] == "auto"
            job = make_job(data, task=task, method=method, metric=metric, **options)
            run = run_job if options.get("folds") is None else cross_validate
            with log_job(callbacks, logger_spec if is_main else None, job) as logged, follow(logged, job) as callback:
                if options["backbone"] is None and options.get("init") is None and Path(data).exists():
                    callback.on_note(
                        f"the embedded backbone ({DEFAULT}) is small and meant for trying out; photos deserve a larger "
                        "one, such as --backbone vit_base_patch16_224.augreg_in21k"
                    )
                result = run(job, callback, overwrite=overwrite, device=device, auto_batch_size=is_auto)
    if is_main and as_json:
        common.print_json({**asdict(result), "verdicts": [asdict(verdict) for verdict in judge_result(result)]})
    elif is_main:
        _print_summary(result, distributed.resolve_device(device).type)


def _print_summary(result: RunResult, device: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vpt.core.metrics import format_metric
    from vpt.core.text import format_bytes, format_duration, printable
    from vpt.tasks.registry import TASKS
    from vpt.training.run_directory import describe_outputs
    from vpt.training.verdicts import judge_result

    task, console = TASKS[result.task], Console(highlight=False)
    title = f"{result.data}, {result.eval_split}: {result.images[result.eval_split]} images"
    classes = Table("class", f"{task.class_label(next(iter(result.eval_metrics)))}, %")
    for name, value in sorted(result.per_class.items(), key=lambda item: -1 if item[1] is None else item[1]):
        classes.add_row(Text(printable(name)), task.nothing if value is None else f"{100 * value:.1f}")
    if 0 < len(result.per_class) <= _MAX_CLASSES:
        console.print(Text(printable(title)))  # no title of the table, which would be broken at its width
        console.print(classes)
    if result.search is not None:
        print_search(result.search, console)
    (first, score), *others = result.eval_metrics.items()
    rest = "".join(f", {task.metrics[name]} {format_metric(name, value)}" for name, value in others)
    trained = f"{result.trainable_parameters:,} of {result.total_parameters:,} parameters"
    if result.head is not None and result.head_parameters is not None:
        trained += f": head {result.head_parameters:,}, method {result.trainable_parameters - result.head_parameters:,}"
    head, memory = "" if result.head is None else f", {result.head}", format_bytes(result.peak_memory_bytes)
    seconds = result.seconds if result.search is None else result.search["seconds"]
    duration = f"{format_duration(seconds)} of {'training' if result.search is None else 'search'}"
    lines = [
        (
            task.metrics.get(first, first),
            f"{format_metric(first, score)} on {result.eval_split}{rest}{_interval(result)}",
        ),
        *(("verdict", str(verdict)) for verdict in judge_result(result)),
        *([] if result.init is None else [("before", _describe_init(result.init))]),
        ("method", f"{result.method}{head} on {result.backbone}"),
        ("trained", f"{trained} ({100 * result.trainable_fraction:.2f} %)"),
        ("file", f"{result.file}, {format_bytes(result.file_bytes)}"),
        ("time", f"{duration}, peak memory of the {'GPU' if device == 'cuda' else 'process'} {memory}"),
        ("more", describe_outputs(result.run_dir)),
        *([("repeat", result.search["repeat_command"])] if result.search and result.search["repeat_command"] else []),
        ("next", f"vpt predict {shlex.quote(result.file)} IMAGE"),
    ]
    if result.eval_split in ("train", "val", "test"):
        lines.append(("", shlex.join(["vpt", "eval", result.file, result.job["data"], "--split", result.eval_split])))
    if result.search is not None:
        lines.append(("", shlex.join(["vpt", "serve", result.file])))
    for name, text in lines:
        echo_line(f"{name:<9}{printable(text)}", whole=name in ("", "next", "repeat"))


def _describe_init(init: dict[str, Any]) -> str:
    """Return the scores of the classes of the file that training went on from."""
    counted = f"the {len(init['classes'])} classes of {init['file']}"
    if not init["images"]:
        return f"{counted} have no images in {init['split']}"
    rates = f"top-1 {100 * init['before']:.2f} % before, {100 * init['after']:.2f} % now"
    return f"{counted}: {rates}, {init['images']} {init['split']} images"


def _interval(result: RunResult) -> str:
    """Return the interval of the score of folds or a search, and a warning where its images took part in choices."""
    from vpt.search.metrics import describe_bounds

    search = result.search
    if result.folds is not None:
        mean, (low, high) = 100 * result.folds["mean"], (100 * bound for bound in result.folds["confidence_interval"])
        count = len(result.folds["scores"])
        return f" (95 % interval {low:.1f} to {high:.1f}; mean of {count} folds {mean:.1f})"
    if search is None:
        return ""
    text = f" ({search['images']} images)"
    if search["interval"] is not None:  # which an undefined metric has not
        bounds = describe_bounds(search["metric"], *search["interval"])
        text = f" (95 % interval {bounds}, {search['images']} images)"
    return text + ("; optimistic: these images took part in the choice" if search["optimistic"] else "")
