"""The report of the proof: README.md with its figures, and tables.json, readable without the paper."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ...ip2p_core.pair_store.durable_files import write_durably, write_text_durably
from ..run_record import package_versions
from .bias import PAIRS, bias_section
from .biased_edits import PLANTED
from .ceiling import CEILING
from .config import ATTRIBUTE_EDITS, EDIT_TYPES, PRESETS, VARIANTS, ProofConfig
from .failures import WORDS as FAILURE_WORDS
from .failures import failure_section
from .figures import draw_scales, draw_sharing, draw_tradeoff_plot, draw_variants
from .findings import SIMILARITIES, Curve, Estimate, accepted_p, accuracy_table, curve_of, shape_table
from .markdown import markdown_table
from .photographs import GRID, PHOTOGRAPHS, photograph_section
from .spoiled import error_section
from .stages import SHARING, Run
from .tradeoff import EDITOR, tradeoff_section, tradeoffs
from .trials import TEXT_SWEEP, Trial

README, TABLES = "README.md", "tables.json"
WORDS = {
    **VARIANTS,
    CEILING: "the exact results after the autoencoder: what an editor in its latents can reach at most",
}
SATURATED = {"text": 3.0, "image": 2.0}
"""Scales above which edits are grainy rather than stronger."""
BARS = ("attribute edits done", "all else kept in these", "all else kept in all edits", "done and kept")
DISTANCE = "L1 to the exact target"


def write_report(run: Run, results: Mapping[str, Any], trials: Sequence[Trial], hardware: str) -> Path:
    """Write the report.

    Args:
        run: with its configuration and data.
        results: of the stages, by name.
        trials: all judged edits.
        hardware: what it ran on, in words.

    Returns:
        The README of the report.
    """
    config, folder = run.config, run.config.report_folder
    table = accuracy_table(trials, [*config.variants, CEILING])
    shapes = shape_table(trials, [name for name in (config.best, "rendered", CEILING) if name in table])
    text, curves = curve_of(trials, TEXT_SWEEP, "text_scale"), tradeoffs(trials)
    image = curves[EDITOR]
    draw_sharing(run, folder / "sharing.png")
    draw_scales(text, image, folder / "scales.png")
    draw_tradeoff_plot(curves, folder / "tradeoff.png")
    attribute = tradeoffs([one for one in trials if one.kind in ATTRIBUTE_EDITS])
    draw_tradeoff_plot(attribute, folder / "tradeoff_attributes.png")
    draw_variants(table, BARS, folder / "variants.png")
    sections = _studies(results, folder)
    _copy(run, folder)
    p = accepted_p(run, results["filter"]["accepted_p"])
    parts = [
        _head(config, results, hardware),
        _central(table),
        _shapes(shapes),
        _sharing(results["sharing"], p, config.self_replace_of),
        _scales(text, image, results["tuning"], config.best),
        tradeoff_section(curves),
        _data(table),
        *sections,
        photograph_section(results["photographs"]),
        _limits(config),
    ]
    content = {
        "config": json.loads((run.folder / "config.json").read_text(encoding="utf-8")),
        "judge": results["judge"],
        "filter": {name: value for name, value in results["filter"].items() if name not in ("accepted_p", "kept")},
        "accepted p": p,
        "sharing": results["sharing"],
        "variants": table,
        "all else kept by shape": shapes,
        "failures": results.get("failures"),
        "bias": results.get("bias"),
        "wrong pairs": results.get("spoiled"),
        "errors": results.get("errors"),
        "photographs": results["photographs"],
        "curves": {"text": text, "image": image, **curves},
        "curves of attribute edits": attribute,
        "versions": package_versions("matplotlib"),
        "hardware": hardware,
    }
    write_text_durably(folder / TABLES, json.dumps(_plain(content), indent=1))
    write_text_durably(folder / README, "\n\n".join(parts) + "\n")
    return folder / README


def _studies(results: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw and describe the further studies that were made."""
    sections = []
    if "errors" in results:
        table, curves = results["errors"]
        draw_tradeoff_plot(curves, folder / "errors.png")
        sections.append(error_section(results["spoiled"], table, curves))
    if "failures" in results:
        found = results["failures"]
        draw_variants(found.done, list(next(iter(found.done.values()))), folder / "failures.png", FAILURE_WORDS)
        sections.append(failure_section(found))
    if "bias" in results:
        shares = {"planted": f"{PLANTED.shape}s that came out {PLANTED.colour}", "others": "other shapes that did"}
        table = {
            name: {words: Estimate(*one[key]) for key, words in shares.items()} for name, one in results["bias"].items()
        }
        draw_variants(table, list(shares.values()), folder / "bias.png", {PAIRS: "pairs"})
        sections.append(bias_section(results["bias"]))
    return sections


def _head(config: ProofConfig, results: Mapping[str, Any], hardware: str) -> str:
    judge, found = results["judge"], results["filter"]
    worst = min(value for name, value in judge.items() if not name.endswith("worsened"))
    return f"""# Does the method work? The whole chain in a rendered world

No trained Stable Diffusion is needed to test the idea of InstructPix2Pix (Brooks et al. 2022): in a world of rendered shapes
the right result of every edit is known to the pixel. A text-to-image model that draws such shapes makes pairs of pictures from
pairs of captions, with the attention of both pictures shared (Prompt-to-Prompt); CLIP filters them; an editor is trained on
these generated pairs alone and then edits renders, which it never saw, by wordings that it never saw.

`ip2p proof` (preset `{config.preset}`) wrote this page; {hardware}. World: {_objects(config)}, plain, eight shapes, eight colours, five backgrounds,
{config.size} px; edits: recolour, background, replace the shape. {found["prompts"]} prompts, {found["pairs"]} pairs; the filter
(image {found["thresholds"]["image"]:.2f}, captions {found["thresholds"]["caption"]:.2f}, directional
{found["thresholds"]["directional"]:.2f}) left {found["prompts_left"]} prompts ({100 * found["prompts_left"] / found["prompts"]:.0f} %; the
paper's data: 69 %) and {found["pairs_left"]} pairs. {_trainings(config)} Intervals are 95 %, by bootstrap over the {3 * config.num_tests} test edits. Edits are judged by a network
that reads attributes off pictures: on renders that it never saw its worst attribute is right in {100 * worst:.2f} %."""


def _trainings(config: ProofConfig) -> str:
    seeds, others = len(config.seeds), min(config.variant_seeds, len(config.seeds))
    names = [f"`{name}`" for name in ("main", "longer") if name in config.variants]
    studies = f", those of the further studies for {config.study_steps}" if config.studies else ""
    return (
        f"With {seeds} seed{'s' * (seeds > 1)} {' and '.join(names)} {'were' if len(names) > 1 else 'was'} trained, with {others} the "
        f"other editors, each for {config.train_steps} steps of {config.batch_size} pairs{studies}."
    )


def _central(table: Mapping[str, Mapping[str, Estimate]]) -> str:
    words = "\n".join(f"- **{name}**: {WORDS[name]}" for name in table)
    kinds = [f"{kind} {what}" for what in ("done", "kept") for kind in EDIT_TYPES]
    return f"""## The central claim

Edits of renders by held-out wordings, combinations of colour and shape that training never saw included:

{_table("trained", table, (*BARS, DISTANCE))}

Attributes are the colour and the background, "these" the edits of these; the columns after it count replaced shapes too. All else is
what the instruction does not name: place, size, and the other two of shape, colour and background. The same by the kind of edit:

{_table("trained", table, kinds)}

{words}

![Shares of edits](variants.png)

![Side by side: original, exact target, and every system](side_by_side.png)"""


def _table(title: str, table: Mapping[str, Mapping[str, Estimate]], columns: Sequence[str]) -> str:
    def cell(row: Mapping[str, Estimate], column: str) -> str:
        return row[column].plain() if column in (DISTANCE, *SIMILARITIES) else row[column].percent()

    return markdown_table(
        [title, *columns], [[name, *(cell(row, column) for column in columns)] for name, row in table.items()]
    )


def _shapes(table: Mapping[str, Mapping[str, Estimate]]) -> str:
    return f"""Which outlines are lost where the colour or the background is edited, by shape:

{_table("all else kept", table, list(next(iter(table.values()))))}"""


def _sharing(found: Mapping[str, Any], p: Mapping[str, Estimate], self_replace_of: Mapping[str, float]) -> str:
    rows = []
    for name, numbers in found.items():
        one = {key: Estimate(*values) for key, values in numbers.items()}
        rows.append([name, one["equal"].percent(), one["moved"].plain(), one["l1"].plain()])
    head = ("shared", "attributes that the edit should leave alone equal", "object moved, sides of the picture", "L1")
    others = "".join(f" ({name}: {share:g})" for name, share in self_replace_of.items())
    ps = ", ".join(f"{kind} {one.plain()}" for kind, one in p.items())
    return f"""## What shared attention does (the paper's Figure 3)

![The same noise, by what is shared](sharing.png)

{markdown_table(head, rows)}

"Both" is what the paper's text describes and the editors learn from: the cross-attention of words that both captions have, in a random
part p of the steps, and self-attention in {SHARING["both"]["self_replace"]:g}{others} of the steps. Mean p of the pairs that passed the filter: {ps}."""


def _scales(text: Curve, image: Curve, tuning: Mapping[str, Any], best: str) -> str:
    return f"""## What the two scales do (Figure 4)

![Both scales](scales.png)

![One edit over both scales](grid.png)

The editor is the one called `{best}` above. Rank correlation of the text scale with the share of edits done: {text.rho("done"):.2f}, up to a scale of {SATURATED["text"]:g}:
{text.rho("done", SATURATED["text"]):.2f}. Of the image scale with the share in which everything else is kept: {image.rho("kept"):.2f}, up to {SATURATED["image"]:g}:
{image.rho("kept", SATURATED["image"]):.2f}; with CLIP image similarity: {image.rho("image"):.2f}. The scales of all other figures, text
{tuning["text_scale"]:g} and image {tuning["image_scale"]:g}, were chosen on other renders."""


def _data(table: Mapping[str, Mapping[str, Estimate]]) -> str:
    return "## More and less data (Figure 10)\n\n" + _table("trained", table, SIMILARITIES)


def _limits(config: ProofConfig) -> str:
    missing = "" if config.max_objects > 1 else " Counting and swapping need two objects (`max_objects`)."
    return f"""## What this does not show

The world is small: {_objects(config)}, pictures of {config.size} pixels, a generator that draws nothing else. CLIP is the embedded one
(`ip2p train-embedded-clip`).{missing} Materials, weather and media are not in it. Run again:
`ip2p proof --preset {config.preset} --set output=proof_run{_changes(config)}`."""


def _changes(config: ProofConfig) -> str:
    """The settings that differ from those of the preset, as the command takes them."""
    usual = asdict(ProofConfig(output=config.output, report=config.report, **PRESETS[config.preset]))
    changed = {name: value for name, value in asdict(config).items() if value != usual[name] and name != "preset"}
    return "".join(f" --set '{name}={json.dumps(value, separators=(',', ':'))}'" for name, value in changed.items())


def _objects(config: ProofConfig) -> str:
    return "one object" if config.max_objects == 1 else f"at most {config.max_objects} objects"


def _copy(run: Run, folder: Path) -> None:
    """Take over pictures of the evaluations."""
    seed = run.config.seeds[0]
    sources = {
        "side_by_side.png": f"trials_{seed}/side_by_side.png",
        "grid.png": "tuning/grid_0.png",
        GRID: f"{PHOTOGRAPHS}/{GRID}",
    }
    for name, source in sources.items():
        path = run.folder / "evaluations" / source
        if path.exists():
            write_durably(folder / name, partial(shutil.copyfile, path))


def _plain(value: Any) -> Any:
    """Names instead of places, and null for what is no number."""
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
