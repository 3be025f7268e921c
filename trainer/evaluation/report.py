"""The report of an evaluation: rows.csv, report.json, plots, and one page with everything, readable by itself."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ...ip2p_core.pair_store.durable_files import write_durably, write_text_durably
from ..page_parts import page, picture_tag, table
from .config import EvaluateConfig
from .examples import Example, ExampleSet
from .metrics import Metrics
from .plots import (
    REASONS,
    Axes,
    best_settings,
    choose_axes,
    describe,
    draw_curves,
    draw_scale_grids,
    draw_side_by_side,
    reason_of,
)
from .run import Row
from .summary import Mean, Summary, metric_names, summarise, summarise_by_type

PAGE, REPORT, ROWS = "index.html", "report.json", "rows.csv"
MEANINGS = {
    "directional": "does the picture change as the captions do? Cosine of the two changes in CLIP's space; higher is better",
    "image": "how much of the picture stays: cosine of original and result in CLIP's space; higher keeps more",
    "caption_0": "original and its caption; says how well CLIP reads the originals, whatever the system does",
    "caption_1": "result and the edited caption; higher is better",
    "instruction_match": "result and the instruction itself, for examples without captions; a rough measure",
    "l1": "mean absolute difference, of 0 to 1; lower keeps more",
    "l2": "mean squared difference; lower keeps more",
    "psnr": "mean squared difference in dB; higher keeps more",
    "ssim": "structural similarity; 1 is equal",
    "lpips": "learned perceptual distance; 0 is equal",
    "dino": "cosine of DINO's features; 1 is equal",
    "structure": "distance of DINO's self-similarities; 0 is equal",
    "judge_edit": "marks of 0 to 10 by the vision model for doing what was asked",
    "judge_keep": "marks of 0 to 10 for keeping everything else",
    "judge_quality": "marks of 0 to 10 for the picture itself",
}
SUFFIXES = {"_outside": "outside the mask", "_inside": "inside the mask"}
TARGET = "target_"
FIRST = (
    "directional",
    "image",
    "caption_1",
    "instruction_match",
    "l1",
    "l1_outside",
    "target_l1",
    "dino",
    "lpips",
    "judge_edit",
    "judge_keep",
)
THUMBNAIL, GRID_EXAMPLES = 256, 2


def write_report(
    config: EvaluateConfig, found: ExampleSet, metrics: Metrics, rows: Sequence[Row], versions: Mapping[str, str]
) -> dict[str, Any]:
    """Write everything into the run folder.

    Args:
        config: of the run.
        found: the examples, and what was left out.
        metrics: with the encoders, and what was skipped.
        rows: all edits with their scores.
        versions: of the packages.

    Returns:
        The content of report.json.
    """
    folder = Path(config.output)
    summaries, by_type = summarise(rows), summarise_by_type(rows)
    axes = choose_axes(summaries)
    chosen = best_settings(summaries, axes)
    record = {
        "examples": {
            "source": config.examples,
            "used": len(found.examples),
            "left_out": found.left_out,
            "with_captions": sum(one.has_captions for one in found.examples),
        },
        "seeds": config.seeds,
        "measured_with": metrics.identity(),
        "skipped": metrics.skipped,
        "systems": [one.record() for one in summaries],
        "by_edit_type": {kind: [one.record() for one in some] for kind, some in by_type.items()},
        "versions": dict(versions),
    }
    pictures = _draw(config, rows, summaries, axes, chosen)
    for name, picture in pictures.items():
        write_durably(folder / name, lambda beside, picture=picture: picture.save(beside, "PNG"))  # type: ignore[misc]
    write_text_durably(folder / ROWS, _csv(rows))
    write_text_durably(folder / REPORT, json.dumps(_finite(record), indent=1, ensure_ascii=False))
    body = [
        _introduction(config, found, summaries),
        *_figures(pictures, reason_of(summaries, axes)),
        "<h2>Means</h2>",
        "<p>Each with its 95 % interval over the examples (bootstrap).</p>",
        _means_table(summaries),
        *_types(by_type, chosen),
        _glossary(rows),
        _measured(record),
        *_gallery(config, rows, chosen, folder),
    ]
    write_text_durably(folder / PAGE, page(f"Evaluation of {folder.resolve().name}", body))
    return record


def _draw(
    config: EvaluateConfig,
    rows: Sequence[Row],
    summaries: Sequence[Summary],
    axes: Axes | None,
    chosen: Mapping[str, Any],
) -> dict[str, Image.Image]:
    folder, pictures = Path(config.output), {}
    if axes is not None:
        pictures["tradeoff.png"] = draw_curves(summaries, axes)
    if config.shown:
        pictures["side_by_side.png"] = draw_side_by_side(rows, chosen, folder, config.shown)
        for number, grid in enumerate(draw_scale_grids(rows, folder, min(GRID_EXAMPLES, config.shown))):
            pictures[f"grid_{number}.png"] = grid
    return pictures


def _introduction(config: EvaluateConfig, found: ExampleSet, summaries: Sequence[Summary]) -> str:
    systems = list(dict.fromkeys(one.system for one in summaries))
    left_out = f" {len(found.left_out)} more could not be used." if found.left_out else ""
    return (
        f"<p>{len(systems)} systems ({html.escape(', '.join(systems))}) edited {len(found.examples)} pictures from "
        f"{html.escape(config.examples)}, each with {len(config.seeds)} seed{'s' * (len(config.seeds) > 1)}.{left_out}</p>"
    )


def _figures(pictures: Mapping[str, Image.Image], reason: str) -> list[str]:
    words = {
        "tradeoff.png": (
            "What an edit does (to the right) against what it keeps (up): the further up and to the right, the better. The "
            "numbers at the points are the swept setting."
        ),
        "side_by_side.png": f"The first examples, {REASONS[reason]}.",
    }
    parts = []
    for name, picture in pictures.items():
        caption = words.get(name, "One example over both guidance scales.")
        parts.append(f"<figure>{picture_tag(picture, name)}<figcaption>{html.escape(caption)}</figcaption></figure>")
    return parts


def _means_table(summaries: Sequence[Summary]) -> str:
    names = sorted({name for one in summaries for name in one.means}, key=_place)
    rows = []
    for one in summaries:
        cells = [_cell(one.means.get(name)) for name in names]
        rows.append([one.system, describe(one.setting) or "the model's own", *cells])
    return table(["system", "setting", *names], rows)


def _place(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def _cell(mean: Mean | None) -> str:
    if mean is None or not mean.num_examples:
        return "-"
    half = (mean.high - mean.low) / 2
    return f"{mean.value:.4g} ± {half:.2g}" + (f" ({mean.num_left_out} no number)" if mean.num_left_out else "")


def _types(by_type: Mapping[str, Sequence[Summary]], chosen: Mapping[str, Any]) -> list[str]:
    if not by_type:
        return []
    names = [name for name in FIRST if any(name in one.means for some in by_type.values() for one in some)]
    rows = [
        [kind, one.system, str(max((m.num_examples for m in one.means.values()), default=0))]
        + [_cell(one.means.get(name)) for name in names]
        for kind, some in by_type.items()
        for one in some
        if one.setting == chosen[one.system]
    ]
    return ["<h2>By kind of edit</h2>", table(["kind", "system", "examples", *names], rows)]


def _glossary(rows: Sequence[Row]) -> str:
    parts = []
    for name in sorted(metric_names(rows), key=_place):
        base, notes = name, []
        if base.startswith(TARGET):
            base = base.removeprefix(TARGET)
            notes.append("against the right result instead of the original")
        for suffix, words in SUFFIXES.items():
            if base.endswith(suffix):
                base = base.removesuffix(suffix)
                notes.append(words)
        text = "; ".join([MEANINGS.get(base, base), *notes])
        parts.append(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>")
    return f"<h2>What the numbers mean</h2><dl>{''.join(parts)}</dl>"


def _measured(record: Mapping[str, Any]) -> str:
    skipped = "".join(
        f"<li>{html.escape(name)}: {html.escape(reason)}</li>" for name, reason in record["skipped"].items()
    )
    left_out = "".join(f"<li>{html.escape(one)}</li>" for one in record["examples"]["left_out"][:20])
    parts = [
        "<h2>How it was measured</h2>",
        f"<pre class='wide'>{html.escape(json.dumps(record['measured_with'], indent=1))}</pre>",
        f"<p>Not measured:</p><ul>{skipped}</ul>" if skipped else "",
        f"<p>Examples left out:</p><ul>{left_out}</ul>" if left_out else "",
        f"<p class='faint'>{html.escape(', '.join(f'{name} {one}' for name, one in record['versions'].items()))}</p>",
    ]
    return "\n".join(parts)


def _gallery(config: EvaluateConfig, rows: Sequence[Row], chosen: Mapping[str, Any], folder: Path) -> list[str]:
    shown: dict[str, Example] = {row.example.key: row.example for row in rows}
    parts = ["<h2>Pictures</h2>"] if config.shown else []
    for key, example in list(shown.items())[: config.shown]:
        cells = [_figure(example.image.picture(), "original", example.caption)]
        if example.target is not None:
            cells.append(_figure(example.target.picture(), "target", example.edited_caption))
        for row in rows:
            if row.example.key == key and row.setting == chosen[row.system] and row.seed == config.seeds[0]:
                scores = ", ".join(f"{name} {row.scores[name]:.3f}" for name in FIRST[:4] if name in row.scores)
                name = f"{row.system} ({describe(row.setting)})" if row.setting.named() else row.system
                cells.append(_figure(Image.open(folder / row.picture), name, scores))
        parts.append(f"<h3>{html.escape(example.instruction)}</h3><div class='row'>{''.join(cells)}</div>")
    return parts


def _figure(picture: Image.Image, name: str, text: str) -> str:
    caption = f"<b>{html.escape(name)}</b><br>{html.escape(text)}"
    return f"<figure>{picture_tag(picture, name, THUMBNAIL)}<figcaption>{caption}</figcaption></figure>"


def _csv(rows: Sequence[Row]) -> str:
    records = [row.record() for row in rows]
    names = list(dict.fromkeys(name for record in records for name in record))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def _finite(value: Any) -> Any:
    """JSON has no infinity: null stands for what is no finite number."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
