"""Words by which people name the folders of splits, images and masks, such as `TRAIN`, `1_train` or `train_images`."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from vpt.core.text import comma_list, did_you_mean
from vpt.errors import DataError, SpecError

SPLITS = ("train", "val", "test")
_SPLIT_WORDS = {
    "train": "train training trainings trn learn learning entrainement apprentissage trainieren lernen entrenamiento "
    "addestramento treino treinamento 训练 訓練 学習",
    "val": "val valid validation validate validating vali validierung validierungs validacion validacao validazione "
    "验证 検証",
    "test": "test testing tests tst testen holdout heldout heldback unseen prufung pruf prueba pruebas teste prova "
    "测试 テスト",
    "dev": "dev devel development entwicklung",  # val beside train, else train
    "eval": "eval evaluate evaluation evaluierung auswertung",  # test, or val beside test
}
_ROLE_WORDS = {
    "image": "image images img imgs imag jpeg jpegs jpegimages photo photos picture pictures pic pics input inputs raw "
    "rgb original originals source sources frame frames scan scans bild bilder foto fotos imagen imagenes slice slices",
    "mask": "mask masks label labels labelids annotation annotations annot annots anno annos gt gts groundtruth truth "
    "segmentation segmentations segm seg segs target targets trimap trimaps matte mattes manual maske masken masque "
    "masques mascara mascaras etiqueta etiquetas labelled annotated",
}
# Words that say nothing more about a folder.
_NOISE_WORDS = (
    "set sets data dataset datasets daten donnees split splits folder dir part subset sample samples final new all png "
    "jpg class classes id ids semantic x y s"
)
_UNLABELED = {"unlabeled", "unlabelled", "unannotated"}
_NOISE = frozenset(_NOISE_WORDS.split())
_SPLIT_OF = {word: split for split, words in _SPLIT_WORDS.items() for word in words.split()}
_ROLE_OF = {word: role for role, words in _ROLE_WORDS.items() for word in words.split()}
_VOCABULARY = sorted({*_SPLIT_OF, *_ROLE_OF, *(word for word in _NOISE if len(word) > 2)}, key=len, reverse=True)


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name, in lower case and without accents: "1_TrainImages" has "train" and "images".

    Args:
        name: Name of a folder, or stem of a file.

    Returns:
        The words and numbers. A number before the first word is left out, since it sorts folders.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    found: list[str] = []
    for part in re.findall(r"[^\W\d_]+|\d+", parts):
        word = unicodedata.normalize("NFC", part.casefold())
        found += _known_words(word) or [word]
    while len(found) > 1 and re.fullmatch(r"\d+|st|nd|rd|th", found[0]):
        del found[0]
    return ("heldout", *found[2:]) if found[:2] in (["held", "out"], ["hold", "out"]) else tuple(found)


@lru_cache(maxsize=4096)  # names of files can be numbers, each another one
def _known_words(compound: str) -> list[str]:
    """Return the known words that a word is composed of, such as "train" and "set"; none if there is a rest."""
    for word in _VOCABULARY:
        if compound == word:
            return [word]
        rest = _known_words(compound[len(word) :]) if compound.startswith(word) else []
        if rest:
            return [word, *rest]
    return []


def split_words(name: str) -> tuple[str, ...]:
    """Return the words of a name that name a split: of train, val, test, dev or eval."""
    return tuple(_SPLIT_OF[word] for word in words_of(name) if word in _SPLIT_OF)


def role_of(name: str) -> str | None:
    """Return "mask" or "image" if a word of a name says so; "image" of "images with masks"."""
    roles = [_ROLE_OF[word] for word in words_of(name) if word in _ROLE_OF]
    return ("mask" if "mask" in roles else "image") if roles else None


def own_words(name: str) -> tuple[str, ...]:
    """Return the words of a name that name neither a split nor images or masks, and say something.

    Numbers belong to the name of a split (train2017), but tell other folders apart (images_1, images_2).
    """
    is_split = bool(split_words(name))
    known = (*_SPLIT_OF, *_ROLE_OF, *_NOISE)
    return tuple(word for word in words_of(name) if word not in known and not (is_split and word.isdigit()))


def is_wrapper(name: str) -> bool:
    """Return True if a name says no more of its contents than "data", "images" or a split."""
    return bool(words_of(name)) and not own_words(name) and (role_of(name) != "mask" or bool(split_words(name)))


def find_split_names(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the splits that folders beside each other name.

    A name is that of a split if it has one word for a split, and else only words that say nothing (`training_set`), or
    that all such names share (`pets_train`, `pets_test`).

    Args:
        names: Names of the folders.

    Returns:
        Split to the names of its folders, for splits with any.
    """
    candidates = {name: split_words(name)[0] for name in names if len(set(split_words(name))) == 1}
    owned = [set(own_words(name)) for name in candidates]
    shared = set.intersection(*owned) if len(owned) > 1 else set()
    candidates = {name: word for name, word in candidates.items() if set(own_words(name)) <= shared}
    found: defaultdict[str, list[str]] = defaultdict(list)
    words = set(candidates.values())
    for name, word in candidates.items():
        split = word
        if word == "dev":
            split = "val" if "train" in words else "train"
        elif word == "eval":
            split = "val" if "test" in words and "val" not in words else "test"
        found[split].append(name)
    return dict(found)


def refuse_names_of_no_class(root: Path, names: Sequence[str]) -> None:
    """Refuse folders that name a class and a split each, such as `cat_train`, and those of images without a label.

    Args:
        root: Their folder.
        names: Names of folders that would be classes.

    Raises:
        DataError: The folders are no classes, by their names.
    """
    none_of_these = "; if all folders are classes, give --split-names none"
    unlabeled = [name for name in names if (own := set(own_words(name))) and own <= _UNLABELED]
    if unlabeled and len(names) > 1:
        raise DataError(
            f"{root}: the name of {comma_list(unlabeled)} says that its images have no label, so it is no class; move "
            f"it away, and give it to vpt predict{none_of_these}"
        )
    splits_of: defaultdict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        if len(set(split_words(name))) != 1:
            return
        splits_of[own_words(name)][split_words(name)[0]] = name
    several = next((found for own, found in splits_of.items() if own and len(found) > 1), None)
    if several is not None and len(splits_of) > 1:
        raise DataError(
            f"{root}: {comma_list(sorted(several.values()))} seem to hold the same class for several splits; sort the "
            "images into train/CLASS and test/CLASS, or write a table labels.csv with the columns image, label and "
            f"split{none_of_these}"
        )


def parse_split_names(text: str | None) -> dict[str, str] | None:
    """Return the names of split folders that a user gives.

    Args:
        text: Such as "train=Training,test=Testing", "none" if no folder is a split, or None to recognize the names.

    Returns:
        Split to the name of its folder; empty for "none".

    Raises:
        SpecError: The text cannot be read.
    """
    if text is None:
        return None
    if text.strip().casefold() == "none":
        return {}
    names: dict[str, str] = {}
    for pair in text.split(","):
        split, _, name = (part.strip() for part in pair.partition("="))
        if split not in SPLITS:
            raise SpecError(
                f"split_names is {text!r}; {did_you_mean(split, SPLITS)}; write train=FOLDER,val=FOLDER,test=FOLDER, "
                "or none if no folder is a split"
            )
        if not name or split in names or name in names.values():
            raise SpecError(f"split_names is {text!r}; give each split one folder of its own")
        names[split] = name.rstrip("/")
    return names


def describe_split_names(folders: Iterable[str]) -> str:
    """Return the option that reads folders as splits, for error messages."""
    pairs = zip(("train", "test", "val"), folders, strict=False)
    return f"--split-names {','.join(f'{split}={name}' for split, name in pairs)}"
