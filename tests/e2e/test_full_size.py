"""A full-size SD1.5 editor with random weights, in both layouts, through the command line (soak)."""

from __future__ import annotations

import os
import subprocess

import numpy
import pytest

from ip2p.tests.e2e.conftest import command, noise_picture, read_picture
from ip2p.tests.forked import ENVIRONMENT
from ip2p.tests.host.test_full_size import MOST_BYTES, full_size  # noqa: F401 - the fixture


@pytest.mark.soak
def test_a_full_size_model_of_either_layout_edits_in_less_than_8_gb(full_size, tmp_path):  # noqa: F811 - the fixture
    noise_picture(256, 256).save(tmp_path / "photo.png")
    pictures = []
    for path in full_size:
        output = f"{path.stem}.png"
        options = ["--models", path.parent, "--model", path.name, "--steps", 2, "--working-resolution", 256]
        arguments = command("edit", "photo.png", "make it night", "-o", output, *options, "--sampler", "euler")
        process = subprocess.Popen(arguments, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        stderr = process.stderr.read()
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, stderr
        assert usage.ru_maxrss * 1024 < MOST_BYTES, f"{path.name} took {usage.ru_maxrss / 2**20:.1f} GB"
        pictures.append(numpy.asarray(read_picture(tmp_path / output)).astype(int))
    assert pictures[0].shape == (256, 256, 3)
    assert numpy.abs(pictures[0] - pictures[1]).max() <= 1
    assert pictures[0].std() > 1
