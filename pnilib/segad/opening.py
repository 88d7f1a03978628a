"""From the words of a command to base maps, images and a segmentation; and back from a saved model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pnilib.data import Split
from pnilib.data.files import list_images, no_image, row
from pnilib.detector.pni import PNI
from pnilib.detector.runs import open_data, read_record, run_categories
from pnilib.errors import PNIError
from pnilib.nsa.detector import NSA
from pnilib.segad.base_maps import FileMaps, MapSource, detector_maps, pni_maps, published_splits
from pnilib.segad.model import SegAD, read_manifest
from pnilib.segad.segments import KINDS, Clusters, Embed, Foreground, LabelFolder, Segmentation, Whole

__all__ = ["OPENERS", "Opened", "folder_split", "load_model", "open_maps", "open_segmentation", "with_good"]


OPENERS: dict[str, Callable[[Path, str], Any]] = {"nsa": NSA.load}
"""`kind` of a run.json -> (OUT/<category>/model, device) -> a detector with predict(split).maps, fingerprint() and
config.geometry.  PNI's runs name no kind and give several maps."""


@dataclass(frozen=True)
class Opened:
    """sources: base maps.  good: normal images that no detector was fitted on; test: the data set's test images.
    embed: patch features of the first PNI, None where there is none.  facts: what opens the same again."""

    sources: list[MapSource]
    good: Split
    test: Split
    embed: Embed | None
    facts: dict[str, Any]


def open_maps(
    places: Sequence[Path],
    cache: Path,
    *,
    rules: Sequence[str] | None = None,
    device: str = "cpu",
    root: Path | None = None,
) -> Opened:
    """Runs (OUT/<category> of `pni fit`, or OUT where it holds one) and folders of the published layout, together.

    rules: settings of each PNI run (`pni_maps`).  root: where the data set is now.  The first place says which images
    are good and which are the test.  Raises PNIError when a later run was fitted on other images, so that its maps are
    of another run.
    """
    sources: list[MapSource] = []
    splits: tuple[Split, Split] | None = None
    embed: Embed | None = None
    runs = [place for place in places if not _is_published(place)]
    for place in places:
        if _is_published(place):
            sources.append(FileMaps(place))
            found = published_splits(place)
        else:
            folder = _one_category(place)
            prefix = f"{folder.parent.name}/" if len(runs) > 1 else ""
            kind = str(read_record(folder).get("kind", "pni"))
            data = open_data(folder, root)
            if kind == "pni":
                pni = PNI.load(folder / "model", device)
                sources.append(pni_maps(pni, rules, cache=cache, prefix=prefix))
                embed = embed or pni.embed
            elif kind in OPENERS:
                other = OPENERS[kind](folder / "model", device)
                geometry, identity = other.config.geometry, other.fingerprint()
                sources.append(detector_maps(prefix + kind, other, geometry, identity, cache))
            else:
                raise PNIError(f"{place}: is a run of {kind}, whose maps SegAD does not know: give one of `pni fit`")
            found = data.held_out, data.test
        if splits is not None and len(runs) == len(places) and _images(found) != _images(splits):
            raise PNIError(
                f"{place}: is a run on other images, or holds out others, than {places[0]}: its maps are of another run"
            )
        splits = splits or found
    if splits is None:
        raise PNIError("no base maps given: name the folder of a `pni fit`, or one with df_test.csv and anomaly_maps/")
    facts = {"places": [str(place.resolve()) for place in places], "rules": list(rules) if rules else None}
    return Opened(sources, *splits, embed, facts)


def open_segmentation(text: str, opened: Opened, *, seed: int = 0) -> Segmentation:
    """The segmentation that `text` names (`pnilib.segad.segments`), learnt from the good images where it learns.

    Raises PNIError for another word, and for clusters without a detector that has patch features.
    """
    if text in ("whole", "foreground"):
        return Whole() if text == "whole" else Foreground()
    if text.startswith("clusters:"):
        if opened.embed is None:
            raise PNIError(f"--segments {text}: maps on disk have no patch features: name a run of `pni fit` first")
        number = text.partition(":")[2]
        if not number.isdigit():
            raise PNIError(f"--segments {text}: give a number of segments, as clusters:4")
        return Clusters(int(number), opened.embed, seed=seed).fit(opened.good, opened.sources[0].geometry)
    if not Path(text).is_dir():
        raise PNIError(f"--segments {text}: is no folder: choose {KINDS}")
    return LabelFolder(text).fit(opened.good)


def load_model(folder: Path, cache: Path, *, device: str = "cpu", root: Path | None = None) -> tuple[SegAD, Opened]:
    """What `pni segad fit` wrote, with its detectors; `root`: where their data set is now.

    Raises PNIError for a damaged folder, or when a detector was fitted anew since.
    """
    manifest = read_manifest(folder)
    try:
        places, rules = [Path(place) for place in manifest["facts"]["places"]], manifest["facts"]["rules"]
        facts = dict(manifest["segmentation"])
        kind = facts["kind"]
    except (KeyError, TypeError):
        raise PNIError(f"{folder}: does not say where its detectors are: fit again with `pni segad fit`") from None
    opened = open_maps(places, cache, rules=rules, device=device, root=root)
    segmentation: Segmentation
    if kind == "clusters":
        if opened.embed is None:
            raise PNIError(f"{folder}: its clusters need a run of `pni fit`: fit again")
        segmentation = Clusters(facts["k"], opened.embed, seed=facts["seed"]).restore(facts)
    elif kind == "folder":
        segmentation = LabelFolder(facts["folder"], facts["names"])
    else:
        segmentation = Whole() if kind == "whole" else Foreground()
    return SegAD.load(folder, opened.sources, segmentation), opened


def folder_split(places: Sequence[Path] | Path, label: int) -> Split:
    """All images below folders, or single images, as good (0), bad (1) or unknown (-1) parts.  Raises PNIError for
    none."""
    rows = []
    for place in [places] if isinstance(places, Path) else places:
        if place.is_file():
            rows.append(row(place, "given", label, place.parent.name, place.parent.name))
            continue
        found = list_images(place, deep=True)
        if not found.images:
            raise no_image(found, "give the folder of the images")
        rows += [row(image, "given", label, image.parent.name, place.name) for image in found.images]
    return Split(pd.DataFrame(rows))


def readable(split: Split, source: MapSource) -> tuple[Split, pd.DataFrame]:
    """The images that a detector can read, and a table of the others: image, problem.  Maps on disk need no images."""
    if isinstance(source, FileMaps):
        return split, pd.DataFrame(columns=["image", "problem"])
    problems: dict[int, str] = {}
    for i in range(len(split)):
        try:
            split.image(i, source.geometry)
        except PNIError as fault:
            problems[i] = str(fault)
    lost = pd.DataFrame(
        {"image": split.samples["image_path"].iloc[[*problems]].map(str), "problem": [*problems.values()]}
    )
    return Split(split.samples.drop(index=[*problems]), split.root), lost


def with_good(opened: Opened, good: Path | None) -> Opened:
    """The same with the images of a folder as good parts.  Raises PNIError when there are no good parts either way."""
    if good is not None:
        return replace(opened, good=folder_split(good, 0))
    if len(opened.good) == 0:
        raise PNIError(
            f"{opened.facts['places'][0]}: all its normal images were used to fit the detector: fit again with "
            "`pni fit ... --option hold_out=0.1`, or give others with --good FOLDER"
        )
    return opened


def _is_published(place: Path) -> bool:
    return (place / "df_test.csv").exists() or (place / "anomaly_maps").is_dir()


def _one_category(place: Path) -> Path:
    found = run_categories(place, kind=None)
    if len(found) > 1:
        raise PNIError(f"{place}: holds several models: give one of them, {', '.join(map(str, found))}")
    return found[0]


def _images(splits: tuple[Split, Split]) -> list[list[str]]:
    return [[str(path) for path in split.samples["image_path"]] for split in splits]
