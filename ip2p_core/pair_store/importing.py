"""What all imports share: records or problems come in, a dataset comes out, and an interrupted import goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import PairStoreError, PictureError
from ..pair_record import ImageHandle, PairRecord, PairScores
from ..triplet import Triplet, prompt_id
from .writer import PairWriter

IMPORTED = "imported"
OnProblem = Literal["skip", "raise"]
_NUM_LISTED = 10


class Problem(NamedTuple):
    """Something that gave no pair."""

    where: str
    reason: str


@dataclass
class ImportReport:
    """What an import did."""

    num_added: int = 0
    num_known: int = 0
    problems: list[Problem] = field(default_factory=list)

    def describe(self) -> str:
        """Say what happened, with the first problems by name."""
        lines = [f"{self.num_added} pairs added, {self.num_known} were there already, {len(self.problems)} skipped."]
        lines += [f"  {problem.where}: {problem.reason}" for problem in self.problems[:_NUM_LISTED]]
        if len(self.problems) > _NUM_LISTED:
            lines.append(f"  and {len(self.problems) - _NUM_LISTED} more")
        return "\n".join(lines)


class SampleNumbers:
    """Numbers the samples of each prompt from 0, in the order in which they come."""

    def __init__(self) -> None:
        self._next: Counter[str] = Counter()

    def record(
        self,
        triplet: Triplet,
        original: ImageHandle,
        edited: ImageHandle,
        *,
        seed: int = 0,
        p2p_threshold: float | None = None,
        text_guidance_scale: float | None = None,
        scores: PairScores | None = None,
    ) -> PairRecord:
        """Make the record of an imported pair."""
        name = prompt_id(triplet)
        index, self._next[name] = self._next[name], self._next[name] + 1
        return PairRecord(
            name, index, triplet, seed, p2p_threshold, text_guidance_scale, IMPORTED, scores, original, edited
        )


def import_pairs(
    items: Iterable[PairRecord | Problem], output: Path, config: Mapping[str, Any], on_problem: OnProblem = "skip"
) -> ImportReport:
    """Write imported pairs into a dataset. Running it again adds only what is not there yet.

    Args:
        items: pairs and problems, in the same order every time.
        output: the dataset.
        config: names the source; a dataset with another source is refused.
        on_problem: skip what cannot be used and list it, or raise at the first.

    Returns:
        What was added and what was skipped.

    Raises:
        PairStoreError: if there is no pair at all, the dataset cannot be written, or a problem may not be skipped.
    """
    report = ImportReport()
    with PairWriter(output, config) as writer:
        for item in items:
            problem = item if isinstance(item, Problem) else _add(writer, item, report)
            if problem is not None and on_problem == "raise":
                raise PairStoreError(
                    f"{problem.where}: {problem.reason.rstrip('.')}. Repair it, or choose to skip what cannot be used."
                )
            if problem is not None:
                report.problems.append(problem)
    if not report.num_added and not report.num_known:
        found = (
            "; ".join(f"{one.where}: {one.reason.rstrip('.')}" for one in report.problems[:3]) or "nothing was found"
        )
        raise PairStoreError(f"There is no pair to import ({found}). Check the folders and names.")
    return report


def _add(writer: PairWriter, record: PairRecord, report: ImportReport) -> Problem | None:
    try:
        if writer.add_record(record):
            report.num_added += 1
        else:
            report.num_known += 1
    except PictureError as error:
        return Problem(record.triplet.source or record.prompt_id, str(error))
    return None
