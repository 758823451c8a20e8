"""Recall at zero false positives and micro-AP, per attack and in all, of filigrane and of the peers beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.copies import peers
from bench.copies.attacks import ATTACKS
from bench.copies.gallery import show_failures
from bench.copies.plots import recall_per_attack
from bench.copies.queries import Query, Suite, ask, own, plain
from bench.copies.run import Run
from bench.copies.scoring import Shows, measure, micro_ap, positives, share_above
from bench.copies.sets import Picture, Sets
from bench.copies.systems import Answers, ask_filigrane, described, filigrane_index
from matcher.pixels import F64, U8, gray, resized


def run(run: Run) -> dict[str, Any]:
    """The suite of 32 attacks; needs the peers' packages."""
    return suite(run, own, run.attacks)


def quick_look(run: Run) -> dict[str, Any]:
    """filigrane alone, affine: for who works on it."""
    queries = ask(run.attacked, own, run.attacks, run.cache)
    return {"systems": [_filigrane(run, queries, "affine", "quick")]}


def suite(run: Run, made_by: Suite, names: Sequence[str]) -> dict[str, Any]:
    queries = ask(run.attacked, made_by, names, run.cache)
    systems = [_filigrane(run, queries, "affine", made_by.__name__)]
    if made_by is own:
        systems += [_filigrane(run, asked, needs, "own") for needs in ("scale", "perspective") if (asked := _needing(queries, needs))]
    systems += _peers(run, queries) if run.peers else []
    return {
        "registered": len(run.sets.registered),
        "attacked": len(run.attacked.registered),
        "distractors": len(run.sets.distractors),
        "queries": len(queries),
        "systems": systems,
    }


def _needing(queries: Sequence[Query], needs: str) -> list[Query]:
    """Those whose attack needs just that transform, and all distractors; nothing where no attack does."""
    found = [query for query in queries if query.shows is None or ATTACKS[query.attack].needs == needs]
    return found if any(query.shows for query in found) else []


def shows_of(registered: Sequence[Picture], queries: Sequence[Query]) -> Shows:
    column = {picture.name: number for number, picture in enumerate(registered)}
    return np.array([-1 if query.shows is None else column[query.shows] for query in queries], np.intp)


def _filigrane(run: Run, queries: Sequence[Query], transform: Any, suite: str) -> dict[str, Any]:
    registered = run.sets.registered
    index = filigrane_index(registered, run.cache)
    answers, shows = ask_filigrane(index, registered, queries, transform), shows_of(registered, queries)
    show_failures(run.out / "copies" / f"{run.part.replace(' ', '-')}-{suite}-{transform}", registered, queries, shows, answers)
    row = row_of(f"filigrane, {transform}", answers.copies, shows, queries)
    return row | {
        "micro_ap": round(micro_ap(answers.all, shows), 4),
        "false_same_scene": measure(answers.all, shows).false - row["false"],
        "textured": _on_textured(run, answers, shows),
        "misses": _misses(queries, answers, shows),
    }


def _misses(queries: Sequence[Query], answers: Answers, shows: Shows) -> list[dict[str, str]]:
    """All positives that are not said to be copies, and what is said of them."""
    missed = np.flatnonzero((shows >= 0) & ~np.isfinite(answers.copies[np.arange(len(shows)), shows]))
    asked = ((queries[int(row)], described(answers.all[row, shows[row]])) for row in missed)
    return [{"attack": query.attack, "picture": str(query.shows), "said": said} for query, said in asked]


def _on_textured(run: Run, answers: Answers, shows: Shows) -> dict[str, float]:
    """How many of the attacked pictures are textured, and the recall on them."""
    names = {picture.name for picture in run.attacked.registered}
    textured = [n for n, picture in enumerate(run.sets.registered) if picture.name in names and is_textured(picture.load())]
    right = answers.copies[np.flatnonzero(np.isin(shows, textured))]
    found = right[np.arange(len(right)), shows[np.isin(shows, textured)]]
    return {"pictures": len(textured), "recall": round(share_above(found, measure(answers.copies, shows).threshold), 4)}


def is_textured(rgb: U8) -> bool:
    """Whether most blocks of 16 x 16 pixels hold detail, once the longer side has 256: a deviation above 4 from the mean of 9 x 9."""
    small = resized(gray(rgb), 256).astype(np.float32)
    small -= cv2.blur(small, (9, 9))
    rows, columns = small.shape[0] // 16, small.shape[1] // 16
    blocks = small[: 16 * rows, : 16 * columns].reshape(rows, 16, columns, 16)
    return bool((blocks.std(axis=(1, 3)) > 4).mean() > 0.5)


def _peers(run: Run, queries: Sequence[Query]) -> list[dict[str, Any]]:
    originals = ask(Sets(run.sets.registered, ()), plain, ["none"], run.cache)
    registered = peers.hash_all([q.path for q in originals], run.contrib)
    found = peers.hash_all([q.path for q in queries], run.contrib)
    shows, rows = shows_of(run.sets.registered, queries), []
    for name in registered[0].bits:
        scores = -peers.distances(registered, found, name)
        rows.append(row_of(name, scores, shows, queries))
        if name == peers.PDQ:
            near = np.where(scores >= -peers.PDQ_THRESHOLD, scores, -np.inf)
            rows.append(row_of(f"PDQ at its documented threshold {peers.PDQ_THRESHOLD}", near, shows, queries, threshold=-np.inf))
    return rows


def row_of(name: str, scores: F64, shows: Shows, queries: Sequence[Query], threshold: float | None = None) -> dict[str, Any]:
    """`threshold`: named is what scores above; by default the highest score of a negative."""
    measured, right = measure(scores, shows), positives(scores, shows)
    above = measured.threshold if threshold is None else threshold
    attacks = np.array([query.attack for query in queries if query.shows is not None])
    return {
        "system": name,
        "recall": round(share_above(right, above), 4),
        "micro_ap": round(measured.micro_ap, 4),
        "threshold": above if np.isfinite(above) else None,
        "false": measured.false,
        "attacks": {attack: round(share_above(right[attacks == attack], above), 4) for attack in dict.fromkeys(attacks.tolist())},
    }


def plot(result: Mapping[str, Any], folder: Path, name: str = "copies-recall.svg") -> None:
    """Beside filigrane the best of each family of peers."""
    systems = {row["system"]: row for row in result["systems"]}
    families = [[row for name, row in systems.items() if name.startswith(family)] for family in ("PDQ", "ImageHash", "OpenCV")]
    best = [max(family, key=lambda row: row["recall"]) for family in families if family]
    recall_per_attack([result["systems"][0], *best], folder / name)


def markdown(result: Mapping[str, Any]) -> list[str]:
    """A table of the systems, and one of the attacks."""
    systems = result["systems"]
    lines = ["| system | recall at 0 false positives | micro-AP | worst attack |", "|---|---|---|---|"]
    for row in systems:
        worst = min(row["attacks"], key=row["attacks"].get)
        lines.append(f"| {row['system']} | {row['recall']:.3f} | {row['micro_ap']:.3f} | {worst} {row['attacks'][worst]:.2f} |")
    lines += ["", *(_sentence(row) for row in systems if "misses" in row)]
    lines += ["", f"| attack | {' | '.join(row['system'] for row in systems)} |", "|---" * (len(systems) + 1) + "|"]
    for attack in systems[0]["attacks"]:
        cells = (f"{row['attacks'][attack]:.2f}" if attack in row["attacks"] else "" for row in systems)
        lines.append(f"| {attack} | {' | '.join(cells)} |")
    return lines


def _sentence(row: Mapping[str, Any]) -> str:
    missed, textured = row["misses"], row["textured"]
    same = sum(miss["said"].startswith("same scene") for miss in missed)
    most = ", ".join(f"{name} ({count})" for name, count in Counter(miss["picture"] for miss in missed).most_common(5))
    false = f"{row['false']} false copies, {row['false_same_scene']} false verdicts of the same scene"
    return (
        f"- {row['system']}: {false}; {len(missed)} copies missed, {same} of them called the same scene; recall on the "
        f"{textured['pictures']} textured pictures {textured['recall']:.3f}; missed most: {most or 'none'}"
    )
