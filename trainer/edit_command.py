"""The command `edit`: every picture by every instruction and seed; one that fails does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..ip2p_core.checkpoint import read_checkpoint, require_editor
from ..ip2p_core.errors import Ip2pError
from ..ip2p_core.image_size import extent_of, fit_mask, working_extent
from ..ip2p_core.image_tensor import LoadedImage, load_image, to_pil
from ..ip2p_core.instruction import describe_truncation
from ..ip2p_core.model_config import ModelConfig
from ..ip2p_core.open_clip_adapter import count_tokens
from ..ip2p_core.sampling import StepCallback
from .diffusers_adapter import load_editor
from .edit import EditSettings, Source, default_settings, edit_source, encode_source
from .edit_arguments import EditTask, apply_options, find_beside, parse_task
from .edit_backend import Editor
from .edit_files import collect_photos, output_paths, require_free, sidecar_path, slug, write_picture, write_text
from .edit_models import resolve_model, resolve_vae
from .edit_record import EditRecord, FileMark, mark, model_digest, program_version

PARTLY, FAILED = 1, 2
DEFAULT_FEATHER = 8


class Job(NamedTuple):
    """One picture to make."""

    photo: Path
    chain: tuple[str, ...]
    seed: int
    output: Path


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: the arguments after `edit`.

    Returns:
        0 if every picture was made, 1 if some were, 2 if none.
    """
    task = parse_task(argv)
    jobs = plan_jobs(task)
    run = EditRun(task, jobs)
    run.warn()
    return run.describe() if task.options.dry_run else run.run()


def plan_jobs(task: EditTask) -> list[Job]:
    """List what to make: picture i of the arguments has seed + i, as image i of a batch.

    Args:
        task: the arguments.

    Returns:
        The jobs, picture by picture.

    Raises:
        ConfigError: if several results would go into one file.
    """
    photos = collect_photos(task.photos)
    todo = [
        (photo, chain, seed, (seed + index) % 2**64)
        for index, photo in enumerate(photos)
        for chain in task.chains
        for seed in task.seeds
    ]
    names = [
        "-".join([photo.stem, slug(" ".join(chain))] + ([f"seed{seed}"] if len(task.seeds) > 1 else []))
        for photo, chain, seed, _ in todo
    ]
    outputs = output_paths(task.options.output, names)
    return [Job(photo, chain, own, out) for (photo, chain, _, own), out in zip(todo, outputs, strict=True)]


@dataclass
class EditRun:
    """All jobs of one call, with the model opened once and every picture read and encoded once."""

    task: EditTask
    jobs: list[Job]
    num_done: int = 0
    _loaded: tuple[Path, LoadedImage] | None = None
    _encoded: tuple[Path, Source] | None = None
    _marks: dict[Path, FileMark] = field(default_factory=dict)

    @cached_property
    def model_name(self) -> str:
        """Name of the model inside the model folder."""
        repeated = self.task.repeated
        name = self.task.options.model or (repeated.model.name if repeated else None)
        return name or "editor"

    @cached_property
    def vae_name(self) -> str | None:
        """Name of another autoencoder."""
        repeated = self.task.repeated
        vae: str | None = self.task.options.vae or (repeated.vae if repeated else None)
        return vae

    @cached_property
    def editor(self) -> Editor:
        """The model, opened on first use."""
        options, repeated = self.task.options, self.task.repeated
        editor = load_editor(
            self.model_name,
            models_dir=options.models,
            vae=self.vae_name,
            dtype=options.dtype or (repeated.dtype if repeated else "auto"),
            device=options.device or "auto",
        )
        if options.compile:
            editor.compile()
        return editor

    @cached_property
    def model_mark(self) -> FileMark:
        """Name and digest of the model, for the records."""
        path = resolve_model(self.model_name, self.task.options.models)
        return FileMark(name=self.model_name, sha256=model_digest(path))

    def settings(self, config: ModelConfig) -> EditSettings:
        """Return the settings of this call: the model's defaults or the repeated ones, changed by the options."""
        repeated = self.task.repeated
        base = repeated.settings if repeated else replace(default_settings(config), feather=DEFAULT_FEATHER)
        return apply_options(base, self.task.options)

    @cached_property
    def mask_path(self) -> Path | None:
        """The mask file."""
        options, repeated = self.task.options, self.task.repeated
        if options.mask is None and repeated is not None and repeated.mask is not None:
            return find_beside(repeated.mask.name, options.repeat, "mask")
        mask: Path | None = options.mask
        return mask

    @cached_property
    def mask(self) -> Tensor | None:
        """The mask [1, H, W] in [0, 1], in its own size."""
        return None if self.mask_path is None else load_image(self.mask_path).pixels.mean(dim=-1)[None]

    def warn(self) -> None:
        """Say what will not be as the user may expect."""
        for text in dict.fromkeys(text for job in self.jobs for text in job.chain):
            warning = describe_truncation(text, count_tokens)
            if warning is not None:
                _say(f"Warning: {warning}")
        repeated = self.task.repeated
        if repeated is None:
            return
        if self.jobs[0].photo.is_file() and self._mark(self.jobs[0].photo).sha256 != repeated.photo.sha256:
            _say(f"Warning: {self.jobs[0].photo} is not the picture that the record was made from.")
        if self.model_name == repeated.model.name and self.model_mark.sha256 != repeated.model.sha256:
            _say(f"Warning: the model {self.model_name!r} has changed since; the result will differ.")

    def describe(self) -> int:
        """Say what would be done, without doing it."""
        options, num_bad, num_bytes = self.task.options, 0, 0
        path = resolve_model(self.model_name, options.models)
        vae_path = None if self.vae_name is None else resolve_vae(self.vae_name, options.models)
        config = read_checkpoint(path, vae_path).config
        require_editor(config)
        settings = self.settings(config)
        for job in self.jobs:
            try:
                require_free(job.output, is_overwriting=options.force)
                extent = extent_of(self._load(job.photo).pixels)
            except Ip2pError as error:
                _say(f"{job.photo}: {error}")
                num_bad += 1
                continue
            work = working_extent(extent, settings.working_resolution, config.size_multiple)
            num_bytes += 4 * extent.width * extent.height
            text = " then ".join(f'"{text}"' for text in job.chain)
            sys.stdout.write(f"{job.output}: {job.photo} ({extent}, worked at {work}), {text}, seed {job.seed}\n")
        branches = [settings.guidance.needed_branches(step, settings.steps) for step in range(settings.steps)]
        num_links = sum(len(job.chain) for job in self.jobs)
        sys.stdout.write(
            f"{len(self.jobs) - num_bad} of {len(self.jobs)} pictures, {settings.steps} steps of {settings.sampler}, "
            f"{sum(map(sum, branches)) * num_links} network evaluations, at most {num_bytes / 1e6:.1f} MB of files.\n"
        )
        return FAILED if num_bad else 0

    def run(self) -> int:
        """Make every picture."""
        with tqdm(unit="step", disable=None, dynamic_ncols=True) as bar:
            for job in self.jobs:
                bar.set_description_str(job.photo.name[:30])
                try:
                    is_done = self._run_job(job, bar)
                except KeyboardInterrupt:
                    bar.write(f"{self.num_done} of {len(self.jobs)} pictures are finished.", file=sys.stderr)
                    raise
                self.num_done += is_done
        if self.num_done == len(self.jobs):
            return 0
        _say(f"{self.num_done} of {len(self.jobs)} pictures were edited.")
        return PARTLY if self.num_done else FAILED

    def _run_job(self, job: Job, bar: tqdm) -> bool:
        """Make one picture; say in one sentence why it failed. What concerns the model or the settings is raised."""
        try:
            require_free(job.output, is_overwriting=self.task.options.force)
            self._load(job.photo)
        except Ip2pError as error:
            bar.write(f"{job.photo}: {error}", file=sys.stderr)
            return False
        settings = self.settings(self.editor.config)
        bar.total = settings.steps * sum(len(one.chain) for one in self.jobs)
        try:
            with _memory_errors():
                self._make(job, settings, lambda _step, _denoised: bar.update())
        except Ip2pError as error:
            bar.write(f"{job.photo}: {error}", file=sys.stderr)
            return False
        bar.write(str(job.output), file=sys.stdout)
        return True

    def _make(self, job: Job, settings: EditSettings, callback: StepCallback) -> None:
        photo = self._load(job.photo)
        if self._encoded is None or self._encoded[0] != job.photo:
            self._encoded = job.photo, encode_source(self.editor, photo.pixels[None], settings)
        source = self._encoded[1]
        mask = None if self.mask is None else fit_mask(self.mask, extent_of(photo.pixels))
        chain = [[text] for text in job.chain]
        result = edit_source(self.editor, source, chain, settings, seed=job.seed, mask=mask, callback=callback)
        record = EditRecord(
            photo=self._mark(job.photo),
            chain=list(job.chain),
            seed=job.seed,
            settings=settings,
            mask=None if self.mask_path is None else self._mark(self.mask_path),
            model=self.model_mark,
            vae=self.vae_name,
            dtype=str(self.editor.dtype).removeprefix("torch."),
            device=self.editor.device.type,
            version=program_version(),
        ).to_json()
        write_picture(to_pil(result.image[0].cpu(), photo.alpha), job.output, record)
        write_text(sidecar_path(job.output), record)

    def _load(self, photo: Path) -> LoadedImage:
        if self._loaded is None or self._loaded[0] != photo:
            self._loaded = photo, load_image(photo)
        return self._loaded[1]

    def _mark(self, path: Path) -> FileMark:
        if path not in self._marks:
            self._marks[path] = mark(path)
        return self._marks[path]


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn running out of memory into a sentence."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise Ip2pError(_NO_MEMORY) from None
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise Ip2pError(_NO_MEMORY) from None


_NO_MEMORY = "There is not enough memory for this edit; lower --working-resolution, or close other programs."


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
