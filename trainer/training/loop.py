"""The training itself: step after step, from the newest checkpoint on, until the last step or a signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...ip2p_core.errors import TrainingHalted
from ...ip2p_core.randomness import hash64
from ...ip2p_core.train_job import TrainConfig
from ...ip2p_core.train_progress import ProgressEvent
from ..accelerate_adapter import Processes, divide, whole
from .average import WeightAverage
from .batches import MicroBatch, MicroBatches, load_ahead, numbers_of_step
from .checkpoints import Checkpoint, newest_checkpoint, write_run_checkpoint
from .network import TrainedNetwork, is_replayed, trained_parameters
from .objective_step import EditObjective
from .optimizer import learning_rate, make_optimizer, restore_state, set_learning_rate, state_tensors
from .run_log import RunLog, peak_memory_mib

CHECK_STEPS = 10
"""Steps between two looks at the loss; each look waits for the device."""
CHECKPOINTS = "checkpoints"


@dataclass
class Window:
    """What has happened since the last look."""

    losses: list[Tensor] = field(default_factory=list)
    num_samples: int = 0
    waited: float = 0.0
    started: float = field(default_factory=time.monotonic)


class TrainingLoop:
    """One run.

    Args:
        config: of the run.
        network: what is trained.
        objective: its loss.
        batches: what it learns from.
        processes: who takes part.
        log: of the run.
        identity: what decides the weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: TrainedNetwork,
        objective: EditObjective,
        batches: MicroBatches,
        processes: Processes,
        log: RunLog,
        identity: dict[str, Any],
    ) -> None:
        self.config, self.objective, self.batches, self.processes = config, objective, batches, processes
        self.log, self.identity = log, identity
        optimizer = make_optimizer([weight for _, weight in trained_parameters(network)], config)
        self.network, self.optimizer = processes.prepare(network, optimizer)
        self.weights = dict(trained_parameters(self.network))
        self.average = WeightAverage(self.weights.items(), config.ema_decay)
        self.step, self.lineage = 0, 0
        self._is_stopping = False
        self._saved_step = -1

    @property
    def per_step(self) -> int:
        """Micro-batches of a step, over all processes."""
        return self.config.batch_size // self.config.micro_batch_size

    def resume(self, folder: Path) -> None:
        """Go on from the newest whole checkpoint of a run folder, if there is one.

        Args:
            folder: of the run.

        Raises:
            CheckpointError: if it was made with other settings.
        """
        found = newest_checkpoint(folder / CHECKPOINTS, self.identity)
        if found is None:
            return
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(divide(found.weights[name], weight))
                if self.average.values:
                    self.average.values[name].copy_(divide(found.average[name], weight))
        restore_state(self.optimizer, found.optimizer, found.optimizer_scalars, divide)
        self.processes.restore_scaler(found.scaler)
        self.step, self.lineage, self._saved_step = (
            found.step,
            found.lineage if self.processes.is_main else 0,
            found.step,
        )
        self._report("start", message="going on from a checkpoint")

    def run(self, on_validation: Callable[[], str | None]) -> bool:
        """Train to the last step.

        Args:
            on_validation: called every `validation_steps`; returns the path of a grid.

        Returns:
            False if a signal ended it before; it can go on from where it is.

        Raises:
            TrainingHalted: if loss or gradients are not finite; the last checkpoint stays.
        """
        config = self.config
        numbers = [
            number
            for step in range(self.step, config.steps)
            for number in numbers_of_step(step, self.per_step, self.processes.rank, self.processes.count)
        ]
        is_pinned = self.processes.device.type == "cuda" and not is_replayed(
            config, self.processes
        )  # it disturbs a capture
        data = load_ahead(self.batches, numbers, config.workers, is_pinned=is_pinned)
        window = Window()
        with self._signals():
            while self.step < config.steps and not self._must_stop():
                self.one_step(data, window)
                if self.step % CHECK_STEPS == 0 or self.step in (1, config.steps):
                    self._look(window)
                    window = Window()
                if self.step % config.checkpoint_steps == 0:
                    self._check(window)
                    self.save()
                if config.validation_steps and self.step % config.validation_steps == 0:
                    self._validate(on_validation)
                    window.started = time.monotonic()
            self._check(window)
            self.save()
        return self.step >= config.steps

    def one_step(self, data: Iterator[MicroBatch], window: Window) -> None:
        """Learn from the next micro-batches of this process, and note what happened."""
        config, processes = self.config, self.processes
        set_learning_rate(self.optimizer, learning_rate(self.step, config))
        num_local = self.per_step // processes.count
        total = torch.zeros((), device=processes.device)
        for i in range(num_local):
            waiting = time.monotonic()
            batch = next(data)
            window.waited += time.monotonic() - waiting
            with processes.accumulating(self.network, is_last=i == num_local - 1):
                loss = self.objective.loss(self.network, batch) / num_local
                processes.backward(loss)
            total += loss.detach()
            self.lineage = (self.lineage + sum(hash64(self.step, *visit) for visit in batch.visits)) % 2**64
            window.num_samples += len(batch.visits) * processes.count
        norm = processes.clip(list(self.weights.values()), config.max_grad_norm or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.step)
        is_scaled = config.precision == "fp16"  # its gradients may overflow: the step is left out then
        window.losses.append(total if norm is None or is_scaled else total + 0 * norm)

    def _check(self, window: Window) -> None:
        """Halt on what is not finite, before it can get into a checkpoint."""
        if window.losses and not bool(torch.stack(window.losses).isfinite().all()):
            raise TrainingHalted(
                f"The loss or its gradients are not finite between steps {self.step - len(window.losses)} and {self.step}. "
                "The last checkpoint is untouched. Lower learning_rate, or use fp32 or bf16, and start again."
            )

    def _look(self, window: Window) -> None:
        self._check(window)
        seconds = max(1e-9, time.monotonic() - window.started)
        rate = len(window.losses) / seconds
        self._report(
            "step",
            loss=float(self.processes.sum(torch.stack(window.losses).mean())) / self.processes.count,
            samples_per_second=round(window.num_samples / seconds, 2),
            seconds_left=round((self.config.steps - self.step) / rate, 1),
            waiting=round(window.waited / seconds, 4),
            memory_mib=peak_memory_mib(self.processes.device),
        )

    def _report(self, kind: str, **values: Any) -> None:
        self.log.write(ProgressEvent(kind=kind, step=self.step, steps=self.config.steps, **values))

    def save(self) -> None:
        """Write a checkpoint of where the run is, unless there is one; all processes call it together.

        Raises:
            CheckpointError: if the disk is full; older checkpoints are whole.
        """
        if self.step == self._saved_step:
            return
        tensors, scalars = state_tensors(self.optimizer, whole)
        checkpoint = Checkpoint(
            step=self.step,
            weights={name: whole(weight) for name, weight in self.weights.items()},
            average={name: whole(value) for name, value in self.average.values.items()},
            optimizer=tensors,
            optimizer_scalars=scalars,
            lineage=self._total_lineage(),
            identity=self.identity,
            scaler=self.processes.scaler_state(),
        )
        if self.processes.is_main:
            path = write_run_checkpoint(self.log.folder / CHECKPOINTS, checkpoint, self.config.keep_checkpoints)
            self._report("checkpoint", path=str(path))
        self.processes.wait()
        self._saved_step = self.step

    def _total_lineage(self) -> int:
        parts = torch.tensor([self.lineage & 0xFFFFFFFF, self.lineage >> 32], device=self.processes.device)
        low, high = self.processes.sum(parts).tolist()
        return int(low + (high << 32)) % 2**64

    def _validate(self, on_validation: Callable[[], str | None]) -> None:
        if self.processes.is_main:
            path = on_validation()
            if path:
                self._report("grid", path=path)
        self.processes.wait()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGTERM and Ctrl-C end the run after the step that is going on."""
        previous = {one: signal.signal(one, self._stop) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in previous.items():
                signal.signal(one, handler)

    def _stop(self, _signal: int, _frame: object) -> None:
        self._is_stopping = True

    def _must_stop(self) -> bool:
        """Ask all processes, so that they end after the same step."""
        if self.processes.count == 1:
            return self._is_stopping
        asked = torch.tensor(float(self._is_stopping), device=self.processes.device)
        return bool(self.processes.sum(asked) > 0)
