"""Which folders hold normal images: by the words of the trade, or as the user says with `normal=`.

A folder called `good`, `OK`, `Normal` or `pass` is normal, in any case of letters; any other folder of test images is
a defect.  A name that could be meant either way is never guessed at: PNIError shows both ways out, to rename it or to
say which folders are normal (`normal=good,good_lowlight`; then every other one is a defect, and nothing is guessed).
"""

import json
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pnilib.data.files import LEFT_OUT, Listing
from pnilib.data.words import composed, is_defect, is_normal, is_part, names_a_fault, sounds_normal
from pnilib.errors import PNIError
from pnilib.store.text import many, shown

__all__ = [
    "all_images",
    "kind_of",
    "label_note",
    "labelled_images",
    "parse_normal",
    "refuse_unmasked",
    "require_folders",
    "training_images",
]


def parse_normal(option: object) -> tuple[str, ...] | None:
    """Value of `normal=`: folder names, as a list or between commas; None where it was not given."""
    if option is None:
        return None
    names = option if isinstance(option, list | tuple) else str(option).split(",")
    return tuple(composed(str(name).strip().rstrip("/")) for name in names if str(name).strip())


def require_folders(normal: tuple[str, ...] | None, places: Sequence[Path]) -> None:
    """Raise PNIError when a folder of `normal=` is in none of `places`."""
    for name in normal or ():
        spelt = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")}
        if not any((place / spelling).is_dir() for place in places for spelling in spelt):
            where = " or ".join(shown(place) for place in places)
            raise PNIError(f"normal={name}: there is no such folder in {where}: check the name")


def training_images(train: Listing, normal: tuple[str, ...] | None) -> list[Path]:
    """Images of the one normal folder of `train`, or of those that `normal` names; what else lies there is not read.

    An empty list when `train` holds none at all.  Raises PNIError when it is not clear which folder is meant.
    """
    folders = {image: _folders(train, image) for image in train.images}
    chosen, why = [image for image, parts in folders.items() if _named(parts, normal) is not None], LEFT_OUT
    if not chosen:
        why = "in other folders of train/"
        tops = sorted({parts[0] for parts in folders.values() if parts})
        usual = [name for name in tops if is_normal(name)]
        doubtful = [name for name in tops if sounds_normal(name)]
        loose = [image for image, parts in folders.items() if not parts]
        if doubtful or len(usual) > 1:
            raise PNIError(
                f"{shown(train.folder)}: which of {_list([*usual, *doubtful])} train? Say so with "
                f"{_option([*usual, *doubtful])}, or rename the others"
            )
        if loose and usual:
            raise PNIError(
                f"{shown(train.folder)}: {_count(loose)} directly in it, beside {shown(usual[0])}/: move them, "
                f"or say which train: {_option(usual)} or {_option(['.', *usual])}"
            )
        chosen = [image for image, parts in folders.items() if parts and parts[0] in usual]
        if not chosen and train.images:
            raise _which_trains(train.folder, normal, loose, tops)
        for image in chosen:
            _refuse_inner_defects(train.folder, folders[image], usual)
    train.not_read.extend((why, image) for image in sorted(set(train.images) - set(chosen)))
    return chosen


def _which_trains(train: Path, normal: tuple[str, ...] | None, loose: list[Path], tops: list[str]) -> PNIError:
    """The line for images of which no folder's name, nor `normal`, says that they are normal."""
    where = [f"{_count(loose)} directly in it"] if loose else []
    where += [f"it has {_list(tops)}"] if tops else []
    likely = [*(["."] if loose else []), *(name for name in tops if not names_a_fault(name))]
    told = [*(normal or ()), *(likely if len(likely) == 1 else ["FOLDER"])]
    what = "none of the folders of normal=" if normal else "no folder good"
    return PNIError(
        f"{shown(train)}: holds {what}, but {' and '.join(where)}: call the folder of normal images good, or say "
        f"which train: {_option(told)}"
    )


def all_images(train: Listing, normal: tuple[str, ...] | None) -> list[Path]:
    """All images of `train`, or those of the folders in it that `normal` names.

    Raises PNIError when its folders hold defects, test images or masks, by their names.
    """
    folders = {image: _folders(train, image) for image in train.images}
    chosen = [image for image, parts in folders.items() if _named(parts, normal) is not None]
    if not chosen:
        _refuse_mixed(train.folder, set(folders.values()))
        return train.images
    train.not_read.extend((LEFT_OUT, image) for image in sorted(set(train.images) - set(chosen)))
    return chosen


def kind_of(listing: Listing, image: Path) -> str:
    """The folder directly in the listed one that an image lies in or below; "" for none."""
    return next(iter(_folders(listing, image)), "")


def labelled_images(
    test: Listing, normal: tuple[str, ...] | None, *, maybe_unlabelled: bool = False
) -> list[tuple[Path, int, str]]:
    """(image, label, kind) of all test images: label 0 or 1, kind the folder directly in `test`.

    `maybe_unlabelled`: where no folder's name says anything, the label is -1 and the kind "unknown".  Raises PNIError
    for names that could be meant either way.
    """
    folders = {image: _folders(test, image) for image in test.images}
    meant = not maybe_unlabelled or not normal or any(_named(p, normal) is not None for p in folders.values())
    if normal is not None and meant:
        return _as_told(test, folders, normal)
    names = {part for parts in folders.values() for part in parts}
    if maybe_unlabelled and not any(is_normal(n) or is_defect(n) or sounds_normal(n) for n in names):
        return [(image, -1, "unknown") for image in folders]
    _refuse_doubtful(test.folder, folders, maybe_unlabelled)
    return [(image, int(not is_normal(parts[0])), parts[0]) for image, parts in folders.items()]


def _as_told(
    test: Listing, folders: dict[Path, tuple[str, ...]], normal: tuple[str, ...]
) -> list[tuple[Path, int, str]]:
    found = []
    for image, parts in folders.items():
        name = _named(parts, normal)
        if name is not None:
            found.append((image, 0, "good" if name == "." else name))
        elif not parts:
            test.not_read.append((LEFT_OUT, image))
        elif is_normal(parts[0]):
            raise PNIError(
                f"{shown(test.folder / parts[0])}: is not among the folders of normal=, so its images would count as "
                f"defects: write {_option([*normal, parts[0]])}, or rename the folder"
            )
        else:
            found.append((image, 1, parts[0]))
    return found


def _refuse_doubtful(test: Path, folders: dict[Path, tuple[str, ...]], maybe_unlabelled: bool) -> None:
    tops = sorted({parts[0] for parts in folders.values() if parts})
    usual = [name for name in tops if is_normal(name)]
    doubtful = [name for name in tops if sounds_normal(name)]
    told = _option(usual)
    if doubtful:
        raise PNIError(
            f"{shown(test)}: is {_list(doubtful)} normal or a defect? Rename it, or say which folders are normal: "
            f"{_option([*usual, *doubtful])}, or {told} if it is a defect"
        )
    for parts in filter(None, folders.values()):
        _refuse_inner_defects(test, parts, usual)
        for depth, part in enumerate(parts[1:], start=2):
            if not is_normal(parts[0]) and (is_normal(part) or sounds_normal(part)):
                inner = "/".join(parts[:depth])
                raise PNIError(
                    f"{shown(test)}: is {shown(inner)}/ normal or a defect? Folders directly in it should say so: move "
                    f"it, or say which are normal: {_option([*usual, inner])}, or {told} if it is a defect"
                )
    if loose := [image for image, parts in folders.items() if not parts]:
        raise PNIError(
            f"{shown(test)}: {_count(loose)} directly in it: move them to good/ or to a folder named after their "
            f"defect, or say which folders are normal: {told} leaves them out, "
            f"{_option(['.', *usual])} takes them as normal"
        )
    if maybe_unlabelled and not usual:
        raise PNIError(
            f"{shown(test)}: holds {_list([n for n in tops if is_defect(n)])} but no folder good: call the folder of "
            f"normal images good, or say which folders are normal: --option normal=FOLDER, or {told} if there is none"
        )


def _refuse_inner_defects(folder: Path, parts: tuple[str, ...], usual: list[str]) -> None:
    if is_normal(parts[0]) and any(is_defect(part) for part in parts):
        raise PNIError(
            f"{shown(folder.joinpath(*parts))}: are these defects? What lies below {shown(parts[0])}/ counts as "
            f"normal: move them out of it, or say that they are normal: {_option(usual)}"
        )


def _refuse_mixed(root: Path, folders: Collection[tuple[str, ...]]) -> None:
    children: dict[tuple[str, ...], set[str]] = {}
    for parts in folders:
        for depth, part in enumerate(parts):
            children.setdefault(parts[:depth], set()).add(part)
    normal = {place: [n for n in sorted(names) if is_normal(n)] for place, names in children.items()}
    good = [
        "/".join((*place, n))
        for place, names in sorted(normal.items())
        if not any(map(is_normal, place))
        for n in names
    ]
    for place, names in sorted(children.items()):
        beside = normal[place] and not any(map(is_normal, place))
        wrong = [
            name
            for name in sorted(names)
            if is_part(name) or is_defect(name) or (beside and not is_normal(name) and not sounds_normal(name))
        ]
        if not wrong:
            continue
        here = Path(os.path.abspath(root.joinpath(*place)))
        what = f"{shown(here)}: holds {_list(wrong)}, and every image below would train: give"
        if "train" in wrong:
            raise PNIError(
                f"{what} --dataset mvtec --root {shown(here.parent)} --category {shown(here.name)}, or the folder of "
                "its normal training images as --root"
            )
        rest = ["/".join((*place, name)) for name in sorted(names - set(wrong))]
        trains = good or rest or (["."] if () in folders else ["FOLDER"])
        alone = "FOLDER" if trains == ["."] else shown(root / trains[0])
        raise PNIError(
            f"{what} the folder of normal images alone, as --root {alone}, or say which folders train: "
            f"{_option(trains)}"
        )


def refuse_unmasked(base: Path, rows: list[dict[str, Any]]) -> None:
    """Raise PNIError for a folder that counts as a defect only because nothing else is known of it: no mask, beside
    defects that have some, and a name that says nothing."""
    kinds: dict[str, bool] = {}
    for sample in rows:
        if sample["label"] == 1:
            kinds[sample["defect_type"]] = kinds.get(sample["defect_type"], False) or sample["mask_path"] is not None
    usual = sorted({r["defect_type"] for r in rows if r["split"] == "test" and r["label"] == 0})
    for kind, masked in sorted(kinds.items()):
        if not masked and not names_a_fault(kind) and any(kinds.values()):
            raise PNIError(
                f"{shown(base / 'test' / kind)}: none of its images has a mask, other defects have: is it one? "
                f"Say which folders are normal: {_option(usual)}, or with it {_option([*usual, kind])}, or rename it"
            )


def label_note(rows: list[dict[str, Any]], standard: str, told: bool) -> list[str]:
    """What was taken as normal, unless it is only what the layout calls so; with `normal=` the defects, too."""
    normal = Counter((r["split"], r["defect_type"]) for r in rows if r["label"] == 0)
    defects = Counter(r["defect_type"] for r in rows if r["label"] == 1)
    notes = []
    if told or any(kind != standard for _, kind in normal):
        order = sorted(normal.items(), key=lambda item: (item[0][0] != "train", item[0][1]))
        note = "normal: " + ", ".join(f"{split}/{shown(kind)} ({many(n, 'image')})" for (split, kind), n in order)
        if told and defects:
            note += "; defects: " + ", ".join(f"{shown(kind)} ({n})" for kind, n in sorted(defects.items()))
        notes.append(note)
    if defects and not any(split == "test" for split, _ in normal):
        notes.append("no normal test images, in a folder called good, OK, normal or pass: all count as defects")
    return notes


def _folders(listing: Listing, image: Path) -> tuple[str, ...]:
    """The folders between the listed one and the image."""
    return image.relative_to(listing.folder).parent.parts


def _named(parts: tuple[str, ...], normal: tuple[str, ...] | None) -> str | None:
    """The folder of `normal` that an image lies in or below."""
    place = "/".join(composed(part) for part in parts) or "."
    return next((name for name in normal or () if place == name or place.startswith(f"{name}/")), None)


def _option(names: Sequence[str]) -> str:
    """As one types it in a shell."""
    text = json.dumps(list(names)) if any("," in name for name in names) else ",".join(names)
    return "--option " + shlex.quote(shown(f"normal={text}"))


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"{shown(name)}/" for name in names[:5]) + (" ..." if len(names) > 5 else "")


def _count(images: Sequence[Path]) -> str:
    name = shown(images[0].name)
    return many(len(images), f"image ({name}) lies", f"images ({name}, ...) lie")
