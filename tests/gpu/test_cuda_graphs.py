"""What is replayed from CUDA graphs computes what plain calls compute; run with `make test-gpu` where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ip2p.tests import tiny
from ip2p.tests.e2e import train_cases
from ip2p.trainer.cuda_graphs import CudaGraphs
from ip2p.trainer.train_command import main


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_with_graphs_learns_what_one_without_learns(tmp_path, precision):
    models = tmp_path / "models"
    models.mkdir()
    tiny.tiny_editor(models / "four.safetensors", in_channels=4)
    dataset = train_cases.make_dataset(tmp_path / "data", 12)
    losses = {}
    for graphs in (False, True):
        settings = {"preset": "embedded", "cuda_graphs": graphs, "precision": precision, "device": "cuda", "steps": 30}
        settings |= {"output": str(tmp_path / f"run-{graphs}"), "micro_batch_size": 4, "workers": 1}
        assert main([str(train_cases.write_config(tmp_path, models, dataset, **settings))]) == 0
        events = train_cases.events(tmp_path / f"run-{graphs}")
        losses[graphs] = [event["loss"] for event in events if event["kind"] == "step"]
    assert len(losses[True]) == 4
    assert losses[True] == pytest.approx(losses[False], rel=1e-3 if precision == "fp32" else 2e-2)


def test_outputs_and_gradients_are_those_of_the_module_for_every_shape_and_after_a_change_of_weights():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).cuda()
    replayed = CudaGraphs(module, module.forward)
    for rows in (3, 5, 3):
        x = torch.randn(rows, 8, device="cuda", requires_grad=True)
        found = []
        for call in (module, replayed):
            output = call(x)
            gradients = torch.autograd.grad(output.square().sum(), [x, *module.parameters()])
            found.append([one.clone() for one in (output.detach(), *gradients)])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)
        with torch.no_grad():
            module[0].weight.mul_(1.5)
            torch.testing.assert_close(replayed(x), module(x))
