"""`ip2p train` in two processes against one: the same global batch, the same weights, no common noise."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ip2p.tests.e2e import train_cases
from ip2p.tests.forked import ENVIRONMENT, ip2p
from ip2p.trainer.training.batches import numbers_of_step
from ip2p.trainer.training.checkpoints import newest_checkpoint

LOOPBACKS = ("127.0.0.1", "127.0.0.2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return train_cases.make_dataset(tmp_path_factory.mktemp("pairs") / "data", 10)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def in_two_processes(config: Path) -> None:
    """Start each process by hand with an address of its own, as two machines would."""
    port, environments = free_port(), []
    for rank, address in enumerate(LOOPBACKS):
        environments.append({
            **ENVIRONMENT, "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": LOOPBACKS[0], "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "NODE_ADDR": address,
        })  # fmt: skip
    with ThreadPoolExecutor(len(environments)) as pool:
        runs = list(pool.map(lambda one: ip2p("train", config, environment=one, timeout=300), environments))
    assert [run.returncode for run in runs] == [0, 0], "\n".join(run.stderr for run in runs)


def trained(folder: Path, models: Path, dataset: Path, num_processes: int, **changes):
    folder.mkdir()
    config = train_cases.write_config(folder, models, dataset, **changes)
    if num_processes == 2:
        in_two_processes(config)
    else:
        ip2p("train", config).check_returncode()
    return newest_checkpoint(folder / "run" / "checkpoints", {})


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_come_to_the_weights_of_one(tmp_path, models, dataset, strategy):
    changes = {"steps": 10, "batch_size": 8, "precision": "fp64", "checkpoint_steps": 10}
    one = trained(tmp_path / "one", models, dataset, 1, **changes)
    two = trained(tmp_path / "two", models, dataset, 2, strategy=strategy, **changes)
    assert largest_difference(one.weights, two.weights) < 1e-9
    assert largest_difference(one.average, two.average) < 1e-9
    assert one.lineage == two.lineage, "the two processes together learnt from other pairs than one does"


def test_the_gradients_of_the_first_step_agree_in_single_precision(tmp_path, models, dataset):
    changes = {"steps": 1, "batch_size": 8, "max_grad_norm": 0.0}
    one, two = (trained(tmp_path / str(n), models, dataset, n, **changes) for n in (1, 2))
    gradients = [
        {name: value / 0.1 for name, value in run.optimizer.items() if name.endswith(".exp_avg")} for run in (one, two)
    ]
    assert max(float(value.abs().max()) for value in gradients[0].values()) > 1e-3
    assert largest_difference(*gradients) < 1e-5


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_no_two_processes_share_a_micro_batch_and_together_they_do_the_step(num_ranks):
    parts = [numbers_of_step(3, 8, rank, num_ranks) for rank in range(num_ranks)]
    assert sorted(number for part in parts for number in part) == list(range(24, 32))


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path, models, dataset):
    config = train_cases.write_config(tmp_path, models, dataset, batch_size=6)
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    done = subprocess.run(
        [*launcher, "-m", "ip2p.trainer", "train", str(config)],
        env=environment, capture_output=True, text=True, check=False, cwd=Path.cwd(),
    )  # fmt: skip
    assert done.returncode != 0
    assert "need a multiple of 4" in done.stderr
