"""Stages that wait for no other: where a GPU does the rest of the chain, processor cores do these meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from ..diffusers_adapter import choose_device
from ..text_log import say
from .config import ProofConfig
from .processes import Work, begun
from .stages import JUDGE, Run, judge_stage
from .trials import edit_by_text2live


def train_judge_beside(config: ProofConfig) -> None:
    """Do the stage of the judge."""
    leave_cores()
    run = Run(config, say)
    run.stage(JUDGE, lambda: judge_stage(run))


def text2live_beside(config: ProofConfig) -> None:
    """Edit by Text2LIVE; the pictures stay in the run folder."""
    leave_cores()
    edit_by_text2live(Run(config, say))


def leave_cores() -> None:
    """Leave most processor cores to the processes beside this one, if there is a GPU: few threads wait less for each other."""
    if _has_gpu():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 4))


def begun_beside(config: ProofConfig) -> AbstractContextManager[Callable[[Work], None]]:
    """Begin both if there is a GPU; see `begun`. If one fails, the stage is done again where it is needed, and tells why."""
    return begun([train_judge_beside, text2live_beside] if _has_gpu() else [], config)


def _has_gpu() -> bool:
    return choose_device("auto").type != "cpu"
