"""Plots for the documentation: small SVG files, the same for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

COLORS: Final = ("#0b6e4f", "#c8553d", "#e0a458", "#6c757d", "#5b7db1")
MARKS: Final = ("o", "s", "D", "^", "v")


def figure(width: float, height: float) -> tuple[Any, Any]:
    """(figure, axes) in the documentation's style."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update(
        {"svg.hashsalt": "filigrane", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    made, axes = plt.subplots(figsize=(width, height), layout="constrained")
    return made, axes


def save(made: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, metadata={"Date": None})


def recall_per_attack(systems: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A row for each attack, those that filigrane (the first system) survives least on top; a mark for each system."""
    attacks = sorted(systems[0]["attacks"], key=lambda attack: (-systems[0]["attacks"][attack], attack))
    made, axes = figure(7, 1.2 + 0.2 * len(attacks))
    for number, row in reversed(list(enumerate(systems))):
        values = [row["attacks"][attack] for attack in attacks]
        axes.plot(
            values, range(len(attacks)), MARKS[number % 5], color=COLORS[number % 5], ms=5, label=f"{row['system']} ({row['recall']:.3f})"
        )
    axes.set_yticks(range(len(attacks)), attacks)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("recall at no false positive")
    axes.grid(axis="x", alpha=0.3)
    made.legend(loc="outside lower center", ncols=2, frameon=False)
    save(made, path)


def stages(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Processor time of each stage, in multiples of decoding."""
    made, axes = figure(7, 0.9 + 0.25 * len(rows))
    names = [row["stage"].replace("*", "").replace("`", "") for row in rows][::-1]
    values = [row["ratio"] for row in rows][::-1]
    axes.barh(names, values, color=COLORS[0], height=0.6)
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:.2f}", va="center")
    axes.axvline(1, color=COLORS[1], lw=1)
    axes.set_xlabel("processor time; 1 = Pillow decodes the picture to RGB")
    save(made, path)


def sizes(rows: Sequence[Mapping[str, Any]], limits: Mapping[int, float], path: Path) -> None:
    """Milliseconds of a search against registered pictures (`pictures`, `search_ms`), and the most that they may be (pictures -> ms)."""
    made, axes = figure(5, 3)
    axes.loglog([row["pictures"] for row in rows], [row["search_ms"] for row in rows], "o-", color=COLORS[0], ms=5)
    axes.loglog(list(limits), list(limits.values()), "_", color=COLORS[1], ms=24, mew=2, label="goal: at most")
    axes.set_xlabel("registered pictures")
    axes.set_ylabel("ms of processor time for a search")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save(made, path)


def calibration(predicted: Sequence[float], observed: Sequence[float], path: Path) -> None:
    """False positives for each query at thresholds of the score: as the score says, and as counted."""
    made, axes = figure(4.5, 3.5)
    axes.loglog(predicted, observed, "o-", color=COLORS[0], ms=4, label="counted")
    axes.loglog(predicted, predicted, color=COLORS[3], lw=1, label="as the score says")
    axes.fill_between(
        predicted, [p / 3 for p in predicted], [p * 3 for p in predicted], color=COLORS[3], alpha=0.15, label="within 3 times"
    )
    axes.set_xlabel("predicted false positives for each query")
    axes.set_ylabel("observed")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save(made, path)
