"""The paper's figures, drawn from finished runs and from the modules themselves.

Which images are shown is decided by rule, never by hand: of a category's defective images the one whose PNI score is
the median, or those at the quartiles where there are two.  Maps are those of the first seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from pnilib.apps.reproduce.plan import Source
from pnilib.apps.reproduce.results import Results, Run, misclassified
from pnilib.apps.reproduce.settings import kinds
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.plots.curves import draw_pixel_histogram, draw_pr_curves
from pnilib.plots.images import show_image
from pnilib.plots.network import Step, draw_details, draw_schema, network_steps
from pnilib.plots.qualitative import Sample, draw_comparison, draw_errors, draw_localization
from pnilib.plots.schematics import draw_mlp, draw_overview
from pnilib.plots.synthesis import draw_opacity, draw_patches, show_area
from pnilib.synthesis import synthesize
from pnilib.synthesis.manual import SOURCES, anomaly_map, blend, defect_image
from pnilib.synthesis.patches import library, load_patches

__all__ = ["FIGURES", "FigureSpec", "misclassified"]

_CURVES = ("A", "B", "E", "PNI")
_SHOWN = ("cable", "hazelnut", "carpet", "grain")
_BESIDE = {"A": "A: nearest neighbor", "PNI": "PNI"}


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the paper; settings: whose runs it draws; role: of which data; draw: raises PNIError where a run
    is missing."""

    number: str
    title: str
    draw: Callable[[Results], Figure]
    settings: tuple[str, ...] = ()
    role: str = "mvtec"

    @property
    def id(self) -> str:
        return self.number.lower().replace(" ", "-")


def _config(results: Results) -> PNIConfig:
    request = results.plan.request
    return request.config(next(iter(request.members)), request.seeds[0])


def _run(results: Results, source: Source, setting: str) -> Run:
    run = results.run(source, setting)
    if run is None:
        raise PNIError(f"{source.category}: the run of setting {setting} is not finished: run `pni reproduce` again")
    return run


def _order(run: Run, label: int) -> ndarray:
    """Indices of the test images of one label by rising score."""
    table = run.scores()
    chosen = np.flatnonzero(table["label"] == label)
    return chosen[np.argsort(table["score"].to_numpy()[chosen], kind="stable")]


def _at_quantiles(order: ndarray, n: int) -> list[int]:
    """n indices at the middles of n equal parts: the median for one."""
    if len(order) == 0:
        return []
    return [int(order[int(len(order) * (2 * k + 1) / (2 * n))]) for k in range(min(n, len(order)))]


def _sample(
    source: Source, runs: dict[str, Run], i: int, *, normal: int | None = None, by_image: bool = False
) -> Sample:
    """A test image with the maps of some runs; `by_image`: contours at the image threshold instead of the pixels'."""
    first = next(iter(runs.values()))
    test, geometry = source.load().test, first.unit.variants[first.setting].geometry
    maps, thresholds, limits = {}, {}, {}
    for name, run in runs.items():
        kept = run.maps()
        if kept is None:
            raise PNIError(f"{run.place}: its maps are gone: delete {run.place.parent} and run again")
        maps[name], thresholds[name] = np.array(kept[i]), run.value("i_threshold" if by_image else "p_threshold")
        low, high = run.facts["limits"]
        limits[name] = (low, max(high, low + 1e-6))
    row = test.samples.iloc[i]
    what = "normal" if row["label"] == 0 else str(row["defect_type"]).replace("_", " ")
    mask = test.mask(i, geometry) if row["label"] >= 0 else None
    beside = None if normal is None else test.image(normal, geometry)
    return Sample(test.image(i, geometry), mask, maps, f"{source.category}: {what}", thresholds, limits, beside)


def _comparison(sources: Sequence[Source], results: Results, *, with_normal: bool) -> Figure:
    """Two defective images a category under the baseline and PNI, beside a normal one."""
    samples = []
    for source in sources:
        runs = {shown: _run(results, source, name) for name, shown in _BESIDE.items()}
        defective = _at_quantiles(_order(runs["PNI"], 1), 2)
        normal = next(iter(_at_quantiles(_order(runs["PNI"], 0), 1)), None) if with_normal else None
        samples += [_sample(source, runs, i, normal=normal) for i in defective]
    return draw_comparison(samples, list(_BESIDE.values()))


def _figure_1(results: Results) -> Figure:
    chosen = _some(results.plan.request.sources["mvtec"], ("cable", "transistor", "capsule", "gear"), 3)
    return _comparison(chosen, results, with_normal=True)


def _figure_s7(results: Results) -> Figure:
    return _comparison(results.plan.request.sources["mvtec"], results, with_normal=False)


def _some(sources: Sequence[Source], preferred: Sequence[str], n: int) -> list[Source]:
    """n categories: the preferred ones that are there, then the first others."""
    by_name = {source.category: source for source in sources}
    named = [by_name[name] for name in preferred if name in by_name]
    return [*named, *(source for source in sources if source not in named)][:n]


def _figure_2(results: Results) -> Figure:
    source = results.plan.request.main[0]
    figure = Figure(figsize=(15.5, 6), layout="constrained")
    title = f"{source.category}, {results.plan.request.profile}"
    draw_overview(_config(results), figure.subplots(), n_train=len(source.load().train), title=title)
    return figure


def _figure_3(results: Results) -> Figure:
    """Two images of each generator: the image, and its area highlighted."""
    config, seed = _config(results), results.plan.request.seeds[0]
    sources = _some(results.plan.request.main, _SHOWN, 2)
    names = ["cutpaste", "scar", "draem", "manual"]
    figure = Figure(figsize=(2.1 * 2 * len(sources), 2.2 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 2 * len(sources), squeeze=False)
    for column, source in enumerate(sources):
        clean = source.load().train.image(0, config.geometry)
        for row, name in enumerate(names):
            made = synthesize(clean, name, seed=seed + 10 * column + row)
            image, mask = torch.as_tensor(made.image), torch.as_tensor(made.mask)
            show_image(image, axes[row, 2 * column], title=f"({'abcd'[row]}) {name}")
            show_area(image, mask, axes[row, 2 * column + 1], title=source.category)
    return figure


def _network(draw: Callable[[list[Step], Axes], Axes], height: float) -> Callable[[Results], Figure]:
    def made(results: Results) -> Figure:
        config = _config(results)
        figure = Figure(figsize=(14, height), layout="constrained")
        draw(network_steps(config, config.image_crop), figure.subplots())
        return figure

    return made


def _curves(results: Results, source: Source) -> dict[str, tuple[ndarray, ndarray, float]]:
    runs = {name: _run(results, source, name) for name in _CURVES}
    found = {name: run.arrays.get("curves", {}) for name, run in runs.items()}
    none = np.zeros(0)
    return {
        name: (curves.get("recall", none), curves.get("precision", none), runs[name].value("p_f1_max"))
        for name, curves in found.items()
    }


def _figure_5(results: Results) -> Figure:
    sources = results.plan.request.sources["mvtec"]
    by_name = {source.category: source for source in sources}
    chosen: list[str] = [name for name in ("hazelnut", "tile") if name in by_name]
    if len(chosen) < 2:
        chosen = list(dict.fromkeys([*(group[0] for group in kinds(list(by_name)).values()), *by_name]))[:2]
    figure = Figure(figsize=(5.2 * len(chosen), 4.2), layout="constrained")
    for ax, name in zip(np.atleast_1d(figure.subplots(1, len(chosen))), chosen, strict=True):
        draw_pr_curves(_curves(results, by_name[name]), ax, title=name)
    return figure


def _figure_s4(results: Results) -> Figure:
    sources = results.plan.request.sources["mvtec"]
    columns = min(3, len(sources))
    rows = -(-len(sources) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, source in zip(axes, sources, strict=False):
        draw_pr_curves(_curves(results, source), ax, title=source.category)
    for ax in axes[len(sources) :]:
        ax.set_axis_off()
    return figure


def _figure_7(results: Results) -> Figure:
    source = _some(results.plan.request.sources["mvtec"], ("metal_nut", "gear"), 1)[0]
    figure = Figure(figsize=(11, 4), layout="constrained")
    for ax, (setting, shown) in zip(figure.subplots(1, 2), _BESIDE.items(), strict=True):
        run = _run(results, source, setting)
        curves = run.arrays.get("curves", {})
        if not curves:
            raise PNIError(f"{source.category}: has no ground truth of pixels: nothing to draw")
        draw_pixel_histogram(
            curves["edges"], curves["normal"], curves["defective"], run.facts["metrics"]["p_threshold"], ax,
            title=f"{source.category}, {shown}",
        )  # fmt: skip
    return figure


def _localization(role: str, each: int) -> Callable[[Results], Figure]:
    def draw(results: Results) -> Figure:
        samples = []
        for source in results.plan.request.sources[role]:
            runs = {"PNI": _run(results, source, "PNI")}
            samples += [_sample(source, runs, i) for i in _at_quantiles(_order(runs["PNI"], 1), each)]
        return draw_localization(samples, "PNI")

    return draw


MOST_ERRORS = 40


def _errors(kind: str) -> Callable[[Results], Figure]:
    def draw(results: Results) -> Figure:
        samples: list[Sample] = []
        total = 0
        for source in results.plan.request.sources["mvtec"]:
            run = _run(results, source, "PNI")
            wrong = misclassified(run)[kind]
            total += len(wrong)
            for i in wrong:
                if len(samples) < MOST_ERRORS:
                    samples.append(_sample(source, {"PNI": run}, i, by_image=True))
        figure = draw_errors(samples, "PNI", kind)
        more = f", the first {MOST_ERRORS} of them" if total > MOST_ERRORS else ""
        figure.suptitle(f"{total} {kind}s of PNI at the F1-optimal thresholds{more}", y=1.0, va="bottom", fontsize=10)
        return figure

    return draw


def _figure_s1(results: Results) -> Figure:
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    draw_mlp(_config(results), figure.subplots(), n_train=len(results.plan.request.main[0].load().train))
    return figure


def _figure_s3(results: Results) -> Figure:
    """(a) patches, (b) opacity maps A, (c) clean images, (d) I of eq. (S1)."""
    config = _config(results)
    sources = _some(results.plan.request.main, _SHOWN, 3)
    patches = library() if config.defect_patches == "builtin" else load_patches(config.defect_patches)
    rng = np.random.default_rng(results.plan.request.seeds[0])
    figure = Figure(figsize=(2.4 * len(sources) + 4.4, 7.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[4.4, 2.4 * len(sources)])
    draw_patches(patches[:24], left.subplots(), columns=4, title="(a) defect patches")
    axes = right.subplots(3, len(sources), squeeze=False)
    for k, (source, filling) in enumerate(zip(sources, SOURCES, strict=False)):
        clean = source.load().train.image(k, config.geometry)
        pixels = clean.permute(1, 2, 0).numpy()
        opacity, _ = anomaly_map(patches, np.ones(pixels.shape[:2], bool), rng)
        made = torch.from_numpy(blend(pixels, opacity, defect_image(pixels, filling, rng))).permute(2, 0, 1)
        draw_opacity(opacity, axes[0, k], title="(b) A")
        show_image(clean, axes[1, k], title=f"(c) {source.category}, clean")
        show_image(made, axes[2, k], title=f"(d) I, filling {filling}")
    return figure


FIGURES: dict[str, FigureSpec] = {
    spec.id: spec
    for spec in (
        FigureSpec("Figure 1", "maps of the baseline and of PNI", _figure_1, ("A", "PNI")),
        FigureSpec("Figure 2", "overview", _figure_2),
        FigureSpec("Figure 3", "synthetic defects", _figure_3),
        FigureSpec("Figure 4", "refinement network", _network(draw_schema, 5)),
        FigureSpec("Figure 5", "pixel precision-recall curves of an object and a texture", _figure_5, _CURVES),
        FigureSpec("Figure 6", "localization on MVTec AD", _localization("mvtec", 1), ("PNI",)),
        FigureSpec("Figure 7", "scores of normal and anomalous pixels", _figure_7, ("A", "PNI")),
        FigureSpec("Figure 8", "localization on VisA", _localization("visa", 1), ("PNI",), "visa"),
        FigureSpec("Figure S1", "neighborhood MLP", _figure_s1),
        FigureSpec("Figure S2", "refinement network in detail", _network(draw_details, 7)),
        FigureSpec("Figure S3", "defects by manual drawing", _figure_s3),
        FigureSpec("Figure S4", "pixel precision-recall curves of every category", _figure_s4, _CURVES),
        FigureSpec("Figure S5", "all false positives", _errors("false positive"), ("PNI",)),
        FigureSpec("Figure S6", "all false negatives", _errors("false negative"), ("PNI",)),
        FigureSpec("Figure S7", "maps of the baseline and of PNI, every category", _figure_s7, ("A", "PNI")),
        FigureSpec("Figure S8", "localization on BTAD", _localization("btad", 2), ("PNI",), "btad"),
    )
}
"""id -> specification."""
