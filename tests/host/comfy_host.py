"""A real ComfyUI for tests: where it is, how to start it with this pack, how to queue a prompt and fetch the pictures.

The checkout is never written to: everything lies in a temporary base directory, where the pack is a link in
custom_nodes. Other tiers import this module as ip2p.tests.host.comfy_host.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
PACK_FOLDER = "instruct-pix2pix"
MODEL_FOLDERS = ("checkpoints", "diffusers", "ip2p", "loras", "controlnet", "vae", "embeddings")
START_SECONDS = 180


def find_comfy(variable: str = "COMFYUI_PATH", default: str = "~/comfy/ComfyUI") -> Path:
    """Return the checkout, or fail the test: a tier asked for by name needs its prerequisite."""
    root = Path(os.environ.get(variable, default)).expanduser().resolve()
    if not (root / "main.py").is_file():
        pytest.fail(f"There is no ComfyUI at {root}; set {variable} to a checkout.", pytrace=False)
    return root


def make_base_directory(base: Path) -> Path:
    """Make the folders that a ComfyUI writes to, with this pack in custom_nodes."""
    for name in ("custom_nodes", "input", "output", "temp", "user", *(f"models/{one}" for one in MODEL_FOLDERS)):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes" / PACK_FOLDER).symlink_to(PACK, target_is_directory=True)
    return base


@dataclass
class ComfyServer:
    """A running ComfyUI."""

    url: str
    base: Path
    process: subprocess.Popen
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:  # noqa: S310 - our own server
            return json.load(answer)

    def post(self, path: str, record: dict | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}{path}", data=json.dumps(record or {}).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
            text = answer.read()
        return json.loads(text) if text else None

    def object_info(self, node_id: str | None = None) -> dict:
        return self.get("/object_info" + (f"/{node_id}" if node_id else ""))

    def queue(self, prompt: dict, client_id: str | None = None) -> str:
        """Queue an API prompt and return its id; a refused prompt raises Refused with the server's answer."""
        record = {"prompt": prompt, "client_id": client_id or str(uuid.uuid4())}
        try:
            return self.post("/prompt", record)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read())) from None

    def wait(self, prompt_id: str, seconds: float = 120) -> dict:
        """Return the history entry of a prompt once it has ended, in whatever way."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            if self.process.poll() is not None:
                raise AssertionError(f"ComfyUI ended.\n{self.log[-4000:]}")
            time.sleep(0.1)
        raise AssertionError(f"The prompt did not end within {seconds} s.\n{self.log[-4000:]}")

    def run(self, prompt: dict, seconds: float = 120) -> dict:
        """Run an API prompt to its end; a failed one is an AssertionError with the server's message."""
        entry = self.wait(self.queue(prompt), seconds)
        if entry["status"]["status_str"] != "success":
            raise AssertionError(f"The prompt failed: {error_of(entry)}\n{self.log[-4000:]}")
        return entry

    def images(self, entry: dict) -> list[Image.Image]:
        """Fetch every picture that a run has saved or previewed, in the order of the nodes' ids."""
        pictures = []
        for _, output in sorted(entry["outputs"].items()):
            for record in output.get("images", []):
                address = f"{self.url}/view?{urllib.parse.urlencode(record)}"
                with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - our own server
                    pictures.append(Image.open(io.BytesIO(answer.read())).convert("RGB"))
        return pictures

    def put_input(self, picture: Image.Image, name: str) -> str:
        """Place a picture in the input folder and return its name for LoadImage."""
        picture.save(self.base / "input" / name)
        return name


class Refused(Exception):
    """The server did not accept a prompt; `answer` is what it said."""

    def __init__(self, answer: dict) -> None:
        self.answer = answer
        super().__init__(json.dumps(answer))


def error_of(entry: dict) -> str:
    """Return the message of the node that failed in a history entry."""
    for kind, record in entry["status"]["messages"]:
        if kind == "execution_error":
            return str(record["exception_message"]).strip()
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_comfy(
    root: Path, base: Path, *options: str, pythonpath: Path | None = None, **variables: str
) -> Iterator[ComfyServer]:
    """Start a ComfyUI on the CPU with a base directory, and stop it afterwards.

    Args:
        root: the checkout.
        base: from make_base_directory.
        options: more command line options.
        pythonpath: a folder that comes first on the module path.
        variables: of its environment.
    """
    port, log_path = free_port(), base / f"server-{uuid.uuid4().hex[:8]}.log"
    command = [sys.executable, str(root / "main.py"), "--cpu", "--port", str(port), "--base-directory", str(base)]
    command += ["--disable-api-nodes", "--use-pytorch-cross-attention", "--database-url", "sqlite:///:memory:"]
    environment = {**os.environ, "PYTHONPATH": str(pythonpath or ""), **variables}
    with log_path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *options], cwd=root, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    server = ComfyServer(f"http://127.0.0.1:{port}", base, process, log_path)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(server: ComfyServer) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise AssertionError(f"ComfyUI did not start.\n{server.log[-6000:]}")
        try:
            server.get("/system_stats")
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"ComfyUI was not ready after {START_SECONDS} s.\n{server.log[-6000:]}")


def edit_prompt(image: str, instruction: str, model_name: str, **options: Any) -> dict:
    """The smallest API prompt of an edit: load, edit, save. `options` change inputs of InstructEdit."""
    edit = {
        "model": ["1", 0],
        "clip": ["1", 1],
        "vae": ["1", 2],
        "image": ["2", 0],
        "instruction": instruction,
        "negative_instruction": "",
        "text_guidance_scale": -1.0,
        "image_guidance_scale": -1.0,
        "seed": 0,
        "steps": 0,
        "sampler_name": "model default",
        "scheduler": "model default",
        "working_resolution": 0,
    }
    return {
        "1": node("LoadInstructPix2Pix", model_name=model_name),
        "2": node("LoadImage", image=image),
        "3": node("InstructEdit", **{**edit, **options}),
        "4": node("SaveImage", images=["3", 0], filename_prefix="edit"),
    }


def node(class_type: str, **inputs: Any) -> dict:
    """One node of an API prompt."""
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}
