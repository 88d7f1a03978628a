"""An explanation in words: what made a pixel score as it did, its looks or its place."""

import math

from pnilib.detector.explain import Explanation

__all__ = ["sentence"]


def sentence(found: Explanation, value: float, threshold: float, level: float = math.nan) -> str:
    """What made this pixel score as it did, in words.  value: of the map, NaN where the run kept none.  threshold: of
    the image, left out where it is not one of the map (image_score other than max).  level: how far a normal patch is
    (`normal_level`), NaN where nobody knows."""
    at = f"The map is {value:.3g} here" if math.isfinite(value) else "The run kept no map of this result"
    if math.isfinite(value) and math.isfinite(threshold) and found.config.image_score == "max":
        at += f", {'at or above' if value >= threshold else 'below'} the image threshold {threshold:.3g}"
    free = [name for name, match in found.matches.items() if found.n_shut[name] == 0 and match.added == 0]
    parts = []
    if free:
        gates = "" if free == ["none"] else f" and allowed by the {' and the '.join(_gate_name(name) for name in free)}"
        parts.append(
            f"the nearest patch of the coreset (training image {found.nearest.train_image}) is "
            f"{found.nearest.distance:.3g} away{gates}"
        )
    for name, match in found.matches.items():
        if name in found.none_allowed:
            parts.append(
                f"the {_gate_name(name)} shuts all {found.n_shut[name]:,} training patches ({_reason(name, found)}), "
                f"so the farthest (training image {match.train_image}) counts, {match.distance:.3g} away instead of "
                f"{found.nearest.distance:.3g}"
            )
        elif name == "veto" and name not in free:
            passed = f"{found.n_shut[name]:,} nearer training patch{'es' if found.n_shut[name] != 1 else ''}"
            parts.append(
                f"the place speaks against the nearest patch, {found.nearest.distance:.3g} away (adding "
                f"{found.nearest.added:.3g}); {passed} passed over, training image {match.train_image} counts: "
                f"{match.distance:.3g} away, and {match.added:.3g} for its place"
            )
        elif name not in free:
            many = "es" if found.n_shut[name] > 1 else ""
            parts.append(
                f"the {_gate_name(name)} shuts {found.n_shut[name]:,} nearer training patch{many} "
                f"({_reason(name, found)}), and the nearest allowed one (training image {match.train_image}) is "
                f"{match.distance:.3g} away instead of {found.nearest.distance:.3g}"
            )
    verdict = _verdict(found, level)
    return f"{at}; this patch scores {found.score:.3g}: {'; '.join(parts)}. {verdict}"


def _gate_name(name: str) -> str:
    return {
        "eq. (6)": "gate of eq. (6)",
        "product": "product of both sources",
        "veto": "soft veto of the position",
    }.get(name, f"{name} gate")


def _reason(name: str, found: Explanation) -> str:
    """Why the nearest of all is shut, in probabilities."""
    match, limit = found.shut[name][0], f"{found.tau:.2g}"
    neighborhood = f"p = {match.p_neighborhood:.2g} from the neighborhood"
    position = (
        "never seen at this position" if match.p_position == 0 else f"p = {match.p_position:.2g} at this position"
    )
    if name == "neighborhood":
        return f"the nearest has {neighborhood}, not above τ = {limit}"
    if name == "position":
        return f"the nearest was {position}" if match.p_position == 0 else (
            f"the nearest has {position}, not above τ = {limit}"
        )  # fmt: skip
    return f"the nearest: {neighborhood}, {position}; together not above τ = {limit}"


def _verdict(found: Explanation, level: float) -> str:
    """Looks, or place: what of the distance beyond a normal patch's is there without gates, and what the gates add.

    Of the distance that counts, `level` is what any normal patch has; the nearest patch's own excess over it is due to
    looks, the rest to the gates.
    """
    free = not any(found.n_shut.values()) and not any(match.added for match in found.matches.values())
    make = "the veto makes" if "veto" in found.matches else "the gates make"
    counted = sum(match.distance + match.added for match in found.matches.values()) / len(found.matches)
    if math.isnan(level):
        added = counted - found.nearest.distance
        made = "no gate stands between it and its nearest neighbor" if free else f"{make} {added:.3g} of it"
        return f"So it counts as {counted:.3g} away, and {made}; how far a normal patch is, the run does not say."
    beyond = counted - level
    if beyond <= 0.05 * level:
        return f"So nothing stands out here: a normal patch is {level:.3g} away."
    if free:
        none = "no gate stands between it and its nearest neighbor"
        return f"So only its looks count: {none}; a normal patch is {level:.3g} away."
    gates = counted - max(found.nearest.distance, level)
    which = "its place more than its looks" if gates > 0.5 * beyond else "its looks more than its place"
    if gates <= 0.05 * beyond:
        which = f"how it looks, and {'the veto changes' if 'veto' in found.matches else 'the gates change'} little"
    return (
        f"So it is {which}: of the {beyond:.3g} that it is farther than a normal patch ({level:.3g}), {make} "
        f"{gates:.3g}."
    )
