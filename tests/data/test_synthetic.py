"""The built-in tasks: the same bytes every time, and labels that the drawn scene bears out."""

from __future__ import annotations

import numpy as np
import pytest

from vpt.data.synthetic import scenes as synthetic_scenes
from vpt.data.synthetic.drawing import BALL, HEART, KITE, NONE, Scene, render
from vpt.data.synthetic.tasks import TASKS, generate, generate_splits
from vpt.errors import DataError

RENDERED_TASKS = [name for name in TASKS if name != "digits"]


@pytest.mark.parametrize("task", TASKS)
def test_generate_with_one_seed_gives_the_same_images(task):
    images, labels = generate(task, 120, seed=1)
    assert images.shape == (120, 48, 48, 3) and images.dtype == np.uint8
    assert labels.shape == (120,) and labels.dtype == np.int64
    assert set(labels.tolist()) == set(range(len(TASKS[task].classes)))
    again, same = generate(task, 120, seed=1)
    assert (images == again).all() and (labels == same).all()
    other, _ = generate(task, 120, seed=2)
    assert (images != other).any()


@pytest.mark.parametrize("task", RENDERED_TASKS)
def test_generate_with_another_size_gives_that_shape(task):
    images, _ = generate(task, 3, seed=0, size=32)
    assert images.shape == (3, 32, 32, 3)


@pytest.mark.parametrize("task", TASKS)
def test_generate_splits_of_each_task_share_no_image(task):
    row, splits = TASKS[task], generate_splits(task, 0, size=16)
    assert [len(splits[split][1]) for split in ("train", "val", "test")] == [row.train, row.val, row.test]
    assert all(len(images) == len(labels) for images, labels in splits.values())
    images = np.concatenate([images for images, _ in splits.values()])
    assert len({image.tobytes() for image in images}) == len(images)


def test_count_scene_label_equals_the_number_of_balls():
    scene, labels = synthetic_scenes.count_scene(300, np.random.default_rng(0))
    assert ((scene.kind == BALL).sum(axis=1) == labels + 1).all()
    there = scene.kind != NONE
    gap = np.hypot(scene.x[:, :, None] - scene.x[:, None], scene.y[:, :, None] - scene.y[:, None])
    gap = gap - scene.radius[:, :, None] - scene.radius[:, None]
    pairs = there[:, :, None] & there[:, None] & ~np.eye(there.shape[1], dtype=bool)
    assert (gap[pairs] > -0.02).mean() > 0.99  # hardly any object hides another


def test_position_scene_label_equals_the_column_of_the_heart():
    scene, labels = synthetic_scenes.position_scene(300, np.random.default_rng(0))
    hearts = scene.kind == HEART
    assert (hearts.sum(axis=1) == 1).all()
    assert (np.floor(scene.x[hearts] * len(TASKS["position"].classes)) == labels).all()


def test_orientation_scene_label_equals_the_angle_of_the_kite():
    scene, labels = synthetic_scenes.orientation_scene(300, np.random.default_rng(0))
    kites = scene.kind == KITE
    assert (kites.sum(axis=1) == 1).all()
    assert (np.round(scene.angle[kites] / 45) % 8 == labels).all()


@pytest.mark.parametrize(("angle", "side"), [(0, np.s_[:, 24:]), (90, np.s_[24:]), (180, np.s_[:, :24])])
def test_render_of_a_kite_is_narrower_towards_its_tip(angle, side):
    one = {name: np.full((1, 1), value, np.float32) for name, value in
           {"x": 0.5, "y": 0.5, "radius": 0.3, "angle": angle}.items()}  # fmt: skip
    scene = Scene(kind=np.full((1, 1), KITE), color=np.ones((1, 1, 3), np.float32), **one)
    image = render(scene, np.zeros((1, 48, 48, 3), np.float32))[0].sum(axis=-1)
    assert 0.3 < image[side].sum() / image.sum() < 0.46


def test_distance_scene_label_equals_the_range_of_the_nearest_object():
    scene, labels, distance, horizon = synthetic_scenes.distance_scene(300, np.random.default_rng(0))
    nearest = distance.min(axis=1)
    steps = (
        np.log(nearest / synthetic_scenes.NEAR)
        / np.log(synthetic_scenes.FAR / synthetic_scenes.NEAR)
        * synthetic_scenes.RANGES
    )
    assert (np.floor(steps) == labels).all()
    foot = scene.y + scene.radius  # what stands nearer meets the plain lower in the picture
    assert (foot.argmax(axis=1) == distance.argmin(axis=1)).all()
    assert (foot > horizon[:, None]).all()


def test_generate_splits_of_digits_are_complete_and_balanced():
    splits = generate_splits("digits", 0)
    counts = {split: np.bincount(labels, minlength=10) for split, (_, labels) in splits.items()}
    assert sum(counts.values()).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    for count in counts.values():
        assert np.ptp(count / count.mean()) < 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cuont", 5, 0), "did you mean 'count'"),
        (("count", 0, 0), "cannot draw 0 images"),
        (("count", 5, 0, 8), "of 8 px"),
        (("count", 5, -1), "seed is -1"),
        (("digits", 2000, 0), "at most 1797"),
    ],
)
def test_generate_with_invalid_arguments_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        generate(*arguments)


def test_generate_splits_changed_in_place_leave_the_next_call_unchanged():
    first = generate_splits("numerals", 0)
    pixel = first["train"][0][0, 0, 0, 0].copy()
    first["train"][0][:] = 255 - pixel
    first["test"][1][:] = 0
    images, labels = generate_splits("numerals", 0)["train"][0], generate_splits("numerals", 0)["test"][1]
    assert images[0, 0, 0, 0] == pixel and set(labels) == set(range(10))
