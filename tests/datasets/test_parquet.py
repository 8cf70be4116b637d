"""Parquet files of a hub's layout, written small, come out as data folders: byte for byte, part by part."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import vpt
from vpt.data.loading import load_dataset
from vpt.datasets.parquet import import_parquet
from vpt.errors import DataError

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

CLASSES = ["iris", "rose/wild", "tulip"]


def image(seed: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write(path, rows, features=None, groups=2):
    """rows: (bytes, label). features: of the label, as the hub describes it."""
    kind = arrow.string() if isinstance(rows[0][1], str) else arrow.int64()
    images = arrow.array(
        [{"bytes": content, "path": f"{i}.x"} for i, (content, _) in enumerate(rows)],
        arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]),
    )
    table = arrow.table({"image": images, "label": arrow.array([label for _, label in rows], kind)})
    if features:
        described = {"info": {"features": {"image": {"_type": "Image"}, "label": features}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=groups)


def interrupt_at_fifth_image(what, done, total):
    """Ctrl-C while the fifth image is written."""
    if what.startswith("writing") and done == 5:
        raise KeyboardInterrupt


@pytest.fixture
def hub(tmp_path):
    """Two files of train, one of test, of which one row has no label."""
    root, named = tmp_path / "hub", {"_type": "ClassLabel", "names": CLASSES}
    write(root / "data/train-00000-of-00002.parquet", [(image(i), i % 3) for i in range(7)], named)
    write(root / "data/train-00001-of-00002.parquet", [(image(i, "PNG"), i % 3) for i in range(7, 12)], named)
    write(root / "data/test-00000-of-00001.parquet", [(image(20), 2), (image(21), -1), (image(22), 0)], named)
    return root


def test_import_parquet_of_a_hub_folder_keeps_bytes_and_labels(hub, tmp_path):
    made = import_parquet(hub, tmp_path / "out")
    data = load_dataset(tmp_path / "out", val_fraction=0)
    assert made["images"] == {"train": 12, "test": 2} and made["classes"] == CLASSES
    kinds = ["JPEG"] * 7 + ["PNG"] * 5
    assert [path.read_bytes() for path in data.train.images] == [image(i, kind) for i, kind in enumerate(kinds)]
    assert data.train.labels.tolist() == [i % 3 for i in range(12)]
    assert [path.read_bytes() for path in data.test.images] == [image(20), image(22)]
    assert data.test.labels.tolist() == [2, 0]
    assert {path.suffix for path in data.train.images} == {".jpg", ".png"}
    assert any("1 image of test have no label" in note for note in data.notes)


def test_import_parquet_after_an_interrupt_resumes(hub, tmp_path):
    seen = []

    with pytest.raises(KeyboardInterrupt):
        import_parquet(hub, tmp_path / "out", progress=interrupt_at_fifth_image)
    with pytest.raises(DataError, match="is not complete"):
        load_dataset(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/images").rglob("*.jpg")}
    import_parquet(hub, tmp_path / "out", progress=lambda what, done, total: seen.append(what))
    assert before and all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(load_dataset(tmp_path / "out").test) == 2 and seen
    seen.clear()
    import_parquet(hub, tmp_path / "out", progress=lambda what, done, total: seen.append(what))
    assert not seen


def test_import_parquet_of_another_source_into_the_same_folder_is_refused(hub, tmp_path):
    """Names are row numbers, so only the source tells them apart."""
    other = tmp_path / "other"
    write(other / "train.parquet", [(image(50 + i), i % 3) for i in range(12)])

    with pytest.raises(KeyboardInterrupt):
        import_parquet(hub, tmp_path / "out", progress=interrupt_at_fifth_image)
    with pytest.raises(DataError, match="from another source"):
        import_parquet(other, tmp_path / "out")
    import_parquet(hub, tmp_path / "out")
    with pytest.raises(DataError, match=r"was made from .*hub, not from .*other"):
        import_parquet(other, tmp_path / "out")


def test_import_parquet_with_label_gaps_renumbers_classes(tmp_path):
    write(tmp_path / "gaps.parquet", [(image(i), (3, 7, 900_000_000)[i % 3]) for i in range(6)])
    assert import_parquet(tmp_path / "gaps.parquet", tmp_path / "gaps")["classes"] == ["3", "7", "900000000"]
    assert load_dataset(tmp_path / "gaps", val_fraction=0, test_fraction=0).train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    write(
        tmp_path / "some.parquet",
        [(image(i), 2 * (i % 2)) for i in range(6)],
        {"_type": "ClassLabel", "names": CLASSES},
    )
    made = import_parquet(tmp_path / "some.parquet", tmp_path / "some")
    assert made["classes"] == ["iris", "tulip"] and "rose/wild" in made["notes"][0]
    assert load_dataset(tmp_path / "some", val_fraction=0, test_fraction=0).train.labels.tolist() == [0, 1] * 3


def test_import_parquet_with_text_labels_uses_them_as_classes(tmp_path):
    write(tmp_path / "pictures.parquet", [(image(i), "ba"[i % 2]) for i in range(6)])
    made = import_parquet(tmp_path / "pictures.parquet", tmp_path / "out")
    assert made["classes"] == ["a", "b"] and made["images"] == {"train": 6}
    assert load_dataset(tmp_path / "out", val_fraction=0, test_fraction=0).train.labels.tolist() == [1, 0] * 3


def test_import_parquet_of_split_folders_names_splits_by_folder(tmp_path):
    """As the hub's own conversion lays them."""
    for split_name in ("train", "validation"):
        write(tmp_path / "in/default" / split_name / "0000.parquet", [(image(i), i % 2) for i in range(4)])
    assert import_parquet(tmp_path / "in", tmp_path / "out")["images"] == {"train": 4, "val": 4}


def test_import_parquet_with_two_label_columns_requires_a_choice(tmp_path):
    columns = {"image": [image(0), image(1)], "fine": [0, 1], "coarse": [1, 0]}
    parquet.write_table(arrow.table(columns), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"2 columns could be the label; name it with --label-column: .*fine \(int64\)"):
        import_parquet(tmp_path / "train.parquet", tmp_path / "out")
    with pytest.raises(DataError, match="there is no column 'fin' for the label; did you mean 'fine'"):
        import_parquet(tmp_path / "train.parquet", tmp_path / "out", label_column="fin")
    assert (
        import_parquet(tmp_path / "train.parquet", tmp_path / "out", label_column="coarse")["label"] == "column coarse"
    )


def test_import_parquet_of_faulty_files_is_refused(tmp_path, hub):
    with pytest.raises(DataError, match="is not a Parquet file or a folder of them"):
        import_parquet(tmp_path / "nowhere", tmp_path / "out")
    write(tmp_path / "bad/train.parquet", [(b"no image", 0), (image(1), 1), (None, 0)])
    with pytest.raises(DataError, match=r"(?s)2 rows cannot be used.*row 0 of train is not an image.*row 2 of train"):
        import_parquet(tmp_path / "bad", tmp_path / "out")
    (tmp_path / "torn.parquet").write_bytes((hub / "data/test-00000-of-00001.parquet").read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        import_parquet(tmp_path / "torn.parquet", tmp_path / "out")
    for config in "ab":
        write(tmp_path / "two" / config / "train.parquet", [(image(0), 0), (image(1), 1)])
    with pytest.raises(DataError, match="give one of these folders"):
        import_parquet(tmp_path / "two", tmp_path / "out")
    write(tmp_path / "past.parquet", [(image(0), 3), (image(1), 1)], {"_type": "ClassLabel", "names": CLASSES})
    with pytest.raises(DataError, match="label 3, but there are 3 class"):
        import_parquet(tmp_path / "past.parquet", tmp_path / "out")


def test_import_parquet_from_hub_without_parquet_uses_its_conversion(hub, tmp_path, monkeypatch):
    import huggingface_hub

    requests = []

    def info(repo, revision):
        files = ["data/train.parquet"] if revision else ["README.md", "train.zip"]
        siblings = [SimpleNamespace(rfilename=file) for file in files]
        return SimpleNamespace(siblings=siblings, sha="abc", card_data={"license": "cc0-1.0"})

    def download(repo, **options):
        requests.append((repo, options["revision"], options["repo_type"], options["allow_patterns"]))
        return str(hub)

    monkeypatch.setattr(huggingface_hub, "dataset_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    made = import_parquet("hf://datasets/owner/flowers", tmp_path / "out")
    assert requests == [("owner/flowers", "abc", "dataset", ["*.parquet"])]
    import_parquet("hf://datasets/owner/flowers@main", tmp_path / "main")
    import_parquet("hf://datasets/owner/flowers@main", tmp_path / "main")
    assert len(requests) == 2
    assert made["source"] == "hf://datasets/owner/flowers@abc" and made["terms"] == "as its page states: cc0-1.0"
    earlier = {**made, "source": "hub:owner/flowers@abc", "asked": "hub:owner/flowers"}
    (tmp_path / "out/prepared.json").write_text(json.dumps(earlier))  # as earlier versions wrote the address
    assert import_parquet("hf://datasets/owner/flowers", tmp_path / "out") == earlier


@pytest.mark.parametrize("address", ["hf://owner/flowers", "hf://datasets/not/a/name"])
def test_import_parquet_of_an_address_of_no_dataset_names_the_form(address, tmp_path):
    with pytest.raises(DataError, match=f"{address} is no dataset on the Hub; write hf://datasets/OWNER/NAME"):
        import_parquet(address, tmp_path / "out")


def test_import_parquet_from_hub_without_its_response_names_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.dataset_info", Mock(side_effect=OSError("no network")))
    message = "hf://datasets/owner/flowers@main cannot be downloaded: no network; check the name"
    with pytest.raises(DataError, match=message):
        import_parquet("hf://datasets/owner/flowers@main", tmp_path / "out")


def test_import_parquet_of_a_partial_conversion_is_refused(hub, tmp_path, monkeypatch):
    """The hub's own conversion holds the first gigabytes of a large split, in a folder of another name."""
    import huggingface_hub

    def info(repo, revision):
        files = ["default/partial-train/0000.parquet", "default/test/0000.parquet"] if revision else ["train.zip"]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files], sha="abc", card_data=None)

    monkeypatch.setattr(huggingface_hub, "dataset_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("gigabytes are fetched"))
    message = r"has only the beginning of the data, in partial-train: .* download its original files"
    with pytest.raises(DataError, match=f"^hf://datasets/owner/flowers {message}"):
        import_parquet("hf://datasets/owner/flowers", tmp_path / "out")
    part = tmp_path / "in/default/partial-train"
    write(part / "0000.parquet", [(image(i), i % 2) for i in range(4)])
    with pytest.raises(DataError, match=message):
        import_parquet(tmp_path / "in", tmp_path / "out")
    part.rename(part.with_name("train"))
    write(part.with_name("partial-occlusion") / "test.parquet", [(image(i), i % 2) for i in range(2)])
    assert import_parquet(tmp_path / "in", tmp_path / "out")["images"] == {"train": 4, "test": 2}


def test_data_import_command_writes_the_data_folder(hub, tmp_path, capsys):
    vpt("data", "import", hub, "--out", tmp_path / "out", "--events", tmp_path / "events.jsonl", "--json")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["done"] for event in events if event["event"] == "data_progress"][-1] == 14
    captured = capsys.readouterr()
    assert json.loads(captured.out)["images"] == {"train": 12, "test": 2}
    assert "12 of train, 2 of test; 3 classes" in captured.err


def test_import_parquet_of_a_file_without_the_label_column_leaves_its_rows_out(tmp_path):
    root = tmp_path / "in"
    write(root / "train-0.parquet", [(image(i), i % 3) for i in range(6)])
    write(root / "test-0.parquet", [(image(i), 0) for i in range(10, 13)])
    table = parquet.read_table(root / "test-0.parquet").drop_columns(["label"])
    parquet.write_table(table, root / "test-0.parquet")
    made = import_parquet(root, tmp_path / "out")
    assert made["images"] == {"train": 6} and made["notes"] == ["3 images of test have no label and were left out"]
    write(root / "train-1.parquet", [(image(i), i % 3) for i in range(6, 8)])
    table = parquet.read_table(root / "train-1.parquet").rename_columns({"image": "picture"})
    parquet.write_table(table, root / "train-1.parquet")
    with pytest.raises(DataError, match=r"train-1\.parquet of train: there is no column 'image' for the image"):
        import_parquet(root, tmp_path / "other")


@pytest.mark.parametrize("in_struct", [True, False])
def test_import_parquet_with_large_binary_images_detects_them(in_struct, tmp_path):
    contents = [image(i) for i in range(4)]
    kind = arrow.struct([("bytes", arrow.large_binary())]) if in_struct else arrow.large_binary()
    images = arrow.array([{"bytes": content} for content in contents] if in_struct else contents, kind)
    parquet.write_table(arrow.table({"photo": images, "label": [0, 1, 0, 1]}), tmp_path / "train.parquet")
    assert import_parquet(tmp_path / "train.parquet", tmp_path / "out")["images"] == {"train": 4}


def test_import_parquet_of_other_columns_into_the_same_folder_is_refused(tmp_path):
    table = arrow.table({
        "large": [image(i) for i in range(6)], "small": [image(10 + i) for i in range(6)],
        "genus": [i % 2 for i in range(6)], "species": [i % 3 for i in range(6)],
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "train.parquet")
    source, out, named = (
        tmp_path / "train.parquet",
        tmp_path / "out",
        {"image_column": "large", "label_column": "genus"},
    )
    with pytest.raises(KeyboardInterrupt):
        import_parquet(source, out, **named, progress=interrupt_at_fifth_image)
    with pytest.raises(DataError, match="was started from another source"):
        import_parquet(source, out, **{**named, "image_column": "small"})
    made = import_parquet(source, out, **named)
    assert import_parquet(source, out) == import_parquet(source, out, **named) == made
    with pytest.raises(DataError, match="out was made with label column genus, not species; choose another --out"):
        import_parquet(source, out, label_column="species")
    with pytest.raises(DataError, match="out was made with image column large, not small; choose another --out"):
        import_parquet(source, out, image_column="small")
    (out / "prepared.json").write_text(json.dumps({key: value for key, value in made.items() if key != "image"}))
    assert "image" not in import_parquet(
        source, out, image_column="small"
    )  # of an earlier version, which did not write it
