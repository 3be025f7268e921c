"""One HTML page, without anything from outside, that shows pairs with their scores and lets a person reject some.

A ticked pair is rejected. The button downloads a list, which `ip2p dataset apply` reads.
"""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..ip2p_core.pair_record import PairRecord, PairScores
from ..ip2p_core.pair_store import PairStore
from ..ip2p_core.pair_store.durable_files import write_durably
from ..ip2p_core.pair_store.review import LIST_FORMAT
from .page_parts import picture_tag

SORTS = ("stored", *PairScores._fields)
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 0; }}
header {{ position: sticky; top: 0; padding: .6rem 1rem; background: Canvas; border-bottom: 1px solid GrayText; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax({width}px, 1fr)); gap: 1rem; padding: 1rem; }}
article {{ border: 1px solid GrayText; border-radius: 6px; padding: .6rem; }}
article:has(input:checked) {{ outline: 3px solid #c00; opacity: .6; }}
.pictures {{ display: flex; gap: 4px; }} .pictures img {{ width: 50%; height: auto; image-rendering: auto; }}
h2 {{ font-size: 1rem; margin: .4rem 0; }} p {{ margin: .2rem 0; }} small {{ color: GrayText; }}
</style></head><body>
<header><strong>{title}</strong> {shown}. Tick the pairs to reject, then
<button type="button" id="download">download the list (<span id="count">0</span>)</button>
and run <code>ip2p dataset apply DATASET rejected.json</code>.</header>
<main>
"""
_TAIL = """</main>
<script>
const ticked = () => [...document.querySelectorAll("main input:checked")];
document.querySelector("main").addEventListener("change", () => {
  document.getElementById("count").textContent = ticked().length;
});
document.getElementById("download").addEventListener("click", () => {
  const rejected = ticked().map((box) => ({
    prompt_id: box.dataset.prompt, sample_index: Number(box.dataset.sample) }));
  const text = JSON.stringify({ format: FORMAT, rejected }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "rejected.json";
  link.click();
});
</script></body></html>
"""


def write_page(store: PairStore, output: Path, split: str | None, sort: str, limit: int, size: int) -> int:
    """Write the page.

    Args:
        store: the dataset; pairs rejected before are left out.
        output: the HTML file; an old one is replaced.
        split: "train", "val", "test", or None for all.
        sort: "stored", or a score, lowest first.
        limit: pairs at most.
        size: longer side of a picture, in pixels.

    Returns:
        How many pairs the page shows.

    Raises:
        PairStoreError: if a pair cannot be read, or the page not written.
    """
    records = list(itertools.islice(_sorted(store.records(split), sort), limit))
    shown = f"{len(records)} of {len(store)} pairs, {'as stored' if sort == 'stored' else 'lowest ' + sort + ' first'}"
    head = _HEAD.format(title=html.escape(store.folder.resolve().name), shown=shown, width=2 * size + 30)

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8") as opened:
            opened.write(head)
            for record in records:
                opened.write(_article(record, size))
            opened.write(_TAIL.replace("FORMAT", json.dumps(LIST_FORMAT)))

    write_durably(output, write)
    return len(records)


def _sorted(records: Iterable[PairRecord], sort: str) -> Iterator[PairRecord]:
    if sort == "stored":
        return iter(records)
    place = PairScores._fields.index(sort)
    return iter(sorted(records, key=lambda one: float("inf") if one.scores is None else one.scores[place]))


def _article(record: PairRecord, size: int) -> str:
    texts = record.triplet
    pictures = "".join(
        picture_tag(handle.picture(), name, size)
        for handle, name in ((record.original, "before"), (record.edited, "after"))
    )
    scores = "no scores"
    if record.scores is not None:
        named = zip(PairScores._fields, record.scores, strict=True)
        scores = ", ".join(f"{name} {score:.3f}" for name, score in named)
    prompt = html.escape(record.prompt_id, quote=True)
    made_by = "" if record.p2p_threshold is None else f", p {record.p2p_threshold:.2f}"
    made_by += "" if record.text_guidance_scale is None else f", guidance {record.text_guidance_scale:.1f}"
    return (
        f'<article><div class="pictures">{pictures}</div><h2>{html.escape(texts.instruction)}</h2>'
        f"<p>{html.escape(texts.caption)} &rarr; {html.escape(texts.edited_caption)}</p><p>{scores}</p>"
        f'<p><label><input type="checkbox" data-prompt="{prompt}" data-sample="{record.sample_index}"> reject</label> '
        f"<small>{prompt}/{record.sample_index}, seed {record.seed}{made_by}</small></p></article>\n"
    )
