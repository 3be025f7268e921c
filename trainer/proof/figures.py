"""The figures of the proof, drawn by matplotlib; colours are told apart by colour-blind eyes too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ip2p_core.guidance_grid import draw_grid
from ...ip2p_core.pair_store import PairStore
from ...ip2p_core.pair_store.durable_files import write_durably
from .edits import write_picture
from .findings import Curve, Estimate, compared_pairs
from .stages import Run, dataset

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5a5a5a")
NUM_SHOWN, LONG_SHARED, LONGEST_TITLE = 6, 0.4, 22


def draw_sharing(run: Run, path: Path) -> None:
    """Draw originals and their edited pictures from the same noise, by what they share (Figure 3)."""
    pairs = {
        name: {one.key: one for one in PairStore(dataset(run, source)).records()}
        for name, source in compared_pairs(run.config).items()
    }
    shared, chosen = pairs["both"], dict[str, tuple[str, int]]()
    for key, one in shared.items():
        is_everywhere = all(key in some for some in pairs.values())
        if (one.p2p_threshold or 0) > LONG_SHARED and len(one.triplet.instruction) <= LONGEST_TITLE and is_everywhere:
            chosen.setdefault(one.prompt_id, key)
    keys = list(chosen.values())[:NUM_SHOWN]
    rows = [[shared[key].original for key in keys], *([some[key].edited for key in keys] for some in pairs.values())]
    pictures = [handle.tensor() for row in rows for handle in row]
    names = ["original", *(f"edited;\nshared:\n{name}" for name in pairs)]
    columns = [shared[key].triplet.instruction for key in keys]
    write_picture(path, draw_grid(pictures, names, columns, cell=150))


def draw_scales(text: Curve, image: Curve, path: Path) -> None:
    """Draw what both scales do: edits done, everything else kept (Figure 4)."""
    figure = _figure(9, 3.6)
    for place, (curve, name) in enumerate(((text, "text guidance scale"), (image, "image guidance scale"))):
        axes = figure.add_subplot(1, 2, place + 1, xlabel=name, ylabel="share of the edits, %", ylim=(0, 103))
        for colour, (label, values) in zip(
            COLOURS, (("edit done", curve.done), ("everything else kept", curve.kept)), strict=False
        ):
            _band(axes, curve.scales, values, label, colour, factor=100)
        axes.legend()
        axes.grid(alpha=0.3)
    _write(figure, path)


def draw_tradeoff_plot(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw CLIP image similarity over directional similarity, the swept setting beside the points (Figure 8)."""
    figure = _figure(6.5, 4.6)
    axes = figure.add_subplot(
        xlabel="directional similarity (what the edit does)", ylabel="image similarity (what is kept)"
    )
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        x, y = [one.value for one in curve.directional], [one.value for one in curve.image]
        axes.plot(x, y, "o-", label=name, color=colour)
        for scale, *place in zip(curve.scales, x, y, strict=True):
            if len(curve.scales) > 1:
                axes.annotate(f"{scale:g}", place, xytext=(5, 4), textcoords="offset points", color=colour, fontsize=8)
    axes.legend()
    axes.grid(alpha=0.3)
    _write(figure, path)


def draw_variants(
    table: Mapping[str, Mapping[str, Estimate]],
    columns: Sequence[str],
    path: Path,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw bars of shares, one group for each row of a table.

    Args:
        table: rows of shares by column.
        columns: to be drawn.
        path: of the picture.
        names: of the rows, where they are not called as in the table.
    """
    figure = _figure(9, 3.8)
    axes = figure.add_subplot(ylabel="%", ylim=(0, 103))
    width = 0.8 / len(columns)
    for number, column in enumerate(columns):
        values = [row[column] for row in table.values()]
        heights = [100 * one.value for one in values]
        errors = [[100 * (one.value - one.low) for one in values], [100 * (one.high - one.value) for one in values]]
        places = [place + (number - (len(columns) - 1) / 2) * width for place in range(len(values))]
        axes.bar(places, heights, width, yerr=errors, label=column, color=COLOURS[number], capsize=2)
    axes.set_xticks(range(len(table)), [(names or {}).get(name, name).replace("_", "\n") for name in table])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=len(columns))
    axes.grid(axis="y", alpha=0.3)
    _write(figure, path)


def _band(axes: Any, x: Sequence[float], values: Sequence[Estimate], label: str, colour: str, factor: float) -> None:
    axes.plot(x, [factor * one.value for one in values], "o-", label=label, color=colour)
    low, high = ([factor * getattr(one, name) for one in values] for name in ("low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.15)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # of the extra `train`

    return Figure(figsize=(width, height), layout="constrained")


def _write(figure: Any, path: Path) -> None:
    write_durably(path, lambda beside: figure.savefig(beside, format="png", dpi=110))
