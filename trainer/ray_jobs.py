"""The jobs of `ip2p pairs` on a Ray cluster: the only file that knows Ray.

Every actor loads the models once and puts units into the spool, which has to lie on a disk that all machines share. Ray does a
job again whose actor died; units are the same whoever makes them, and are written whole, so that twice is as good as once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..ip2p_core.errors import ConfigError
from ..ip2p_core.pair_store import Unit
from .pair_jobs import Batch, Job, Recipe, do_jobs, jobs_of
from .pair_spool import Spool
from .pair_units import UnitMaker

INSTALL = "pip install 'instruct-pix2pix[cluster]'"


def do_jobs_on_ray(recipe: Recipe, spool: Spool, num_workers: int) -> Iterator[Batch]:
    """Do the jobs on the cluster that RAY_ADDRESS names, or on this machine.

    Args:
        recipe: what is made.
        spool: of the run, on a shared disk.
        num_workers: actors; each takes a GPU where the cluster has any.

    Yields:
        Batch: Units that are new in the spool.

    Raises:
        ConfigError: if Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError(
            f"The engine 'ray' needs Ray, which is not installed. {INSTALL}, or choose 'local'."
        ) from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    jobs = [{"job": json.dumps(job)} for job in jobs_of(recipe.config, list(recipe.by_id))]
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    done = ray.data.from_items(jobs, override_num_blocks=len(jobs)).map_batches(
        _Worker,
        fn_constructor_args=(recipe,),
        batch_size=1,
        batch_format="numpy",
        concurrency=num_workers,
        num_gpus=1 if has_gpus else 0,
        num_cpus=0 if has_gpus else 1,
        max_restarts=-1,
        max_task_retries=-1,
    )
    for _ in done.iter_rows():
        yield spool.refresh()
    yield spool.refresh()


class _Worker:
    """One actor."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._spool = Spool(recipe.spool_folder, is_shared=True)
        self._maker = UnitMaker.load(recipe.config)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Do jobs, less what an actor before has done of them."""
        self._spool.refresh()
        jobs = [_read(text) for text in rows["job"]]
        for _ in do_jobs(self._maker, self._recipe, self._spool, jobs):
            pass
        return rows


def _read(text: str) -> Job:
    return [[Unit(*unit) for unit in batch] for batch in json.loads(text)]
