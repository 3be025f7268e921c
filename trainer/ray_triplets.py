"""Questions of `ip2p triplets` on a Ray cluster, by the language-model processors of Ray Data.

The backend "server" sends requests from the cluster's machines to a server; "transformers" starts vLLM engines on its GPUs.
Questions go out in portions, so that a run can be stopped, and what fails is asked again in the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from ..ip2p_core.errors import ConfigError, ServerError
from ..ip2p_core.instruction_writer.client import Reply, read_reply, request_body
from ..ip2p_core.instruction_writer.prompts import TEXT_END, answer_schema
from .ray_jobs import INSTALL
from .triplets.config import TripletsConfig
from .triplets.journal import Entry
from .triplets.moderation import Moderator
from .triplets.questions import Question, Trial
from .triplets.writers import server_settings

PORTION = 4096
"""Questions that go out together."""


def write_on_ray(config: TripletsConfig, moderator: Moderator | None, questions: Iterable[Question]) -> Iterator[Entry]:
    """Answer questions on the cluster that RAY_ADDRESS names, or on this machine.

    Args:
        config: settings of the run.
        moderator: judges instruction and edited caption.
        questions: in any number.

    Yields:
        Entry: One for each question.

    Raises:
        ConfigError: if Ray is not installed.
        ServerError: if the cluster gives up.
    """
    try:
        import ray
        import ray.data.llm
    except ImportError as error:
        raise ConfigError(f"The engine 'ray' needs Ray Data ({error}). {INSTALL}, or choose 'local'.") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    processor = _http_processor(config, ray) if config.backend == "server" else _engine_processor(config, ray)
    waiting = iter(questions)
    while portion := list(islice(waiting, PORTION)):
        yield from _answer_portion(config, moderator, portion, lambda rows: processor(ray.data.from_items(rows)))


def _answer_portion(
    config: TripletsConfig,
    moderator: Moderator | None,
    portion: Sequence[Question],
    process: Callable[[list[dict[str, Any]]], Any],
) -> Iterator[Entry]:
    left = {place: Trial(question, config, moderator) for place, question in enumerate(portion)}
    for _ in range(config.num_tries):
        if not left:
            return
        rows = [{"place": place, "prompt": trial.prompt, "seed": trial.seed % 2**31} for place, trial in left.items()]
        try:
            for row in process(rows).iter_rows():
                place, tokens = row["place"], (int(row["prompt_tokens"]), int(row["completion_tokens"]))
                entry = left[place].take(Reply(row["text"], bool(row["is_cut"]), *tokens))
                if entry is not None:
                    del left[place]
                    yield entry
        except RuntimeError as error:  # of Ray, with the reason somewhere inside
            raise ServerError(
                f"The cluster gave up ({str(error).strip().splitlines()[-1][:300]}). Run it again."
            ) from None


def _http_processor(config: TripletsConfig, ray: Any) -> Any:
    settings = server_settings(config)
    schema = answer_schema() if config.structured and config.style == "chat" else None

    def before(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "payload": request_body(settings, row["prompt"], row["seed"], schema=schema)}

    def after(row: dict[str, Any]) -> dict[str, Any]:
        return {"place": row["place"], **read_reply(row["http_response"])._asdict()}

    processor_config = ray.data.llm.HttpRequestProcessorConfig(
        url=settings.address(),
        headers=settings.headers(),
        qps=10_000,  # without it requests go one by one
        max_retries=config.retries,
        batch_size=config.concurrency,
        concurrency=config.workers,
    )
    return ray.data.llm.build_processor(processor_config, preprocess=before, postprocess=after)


def _engine_processor(config: TripletsConfig, ray: Any) -> Any:
    if config.adapter:
        raise ConfigError("The engine 'ray' takes no adapter. Merge the LoRA into the model, or choose 'local'.")
    is_chat = config.style == "chat"
    sampling = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "frequency_penalty": config.frequency_penalty,
        "max_tokens": config.max_tokens,
        **({} if is_chat else {"stop": [TEXT_END]}),
    }

    def before(row: dict[str, Any]) -> dict[str, Any]:
        asked = {"messages": [{"role": "user", "content": row["prompt"]}]} if is_chat else {"prompt": row["prompt"]}
        return {"place": row["place"], **asked, "sampling_params": {**sampling, "seed": row["seed"]}}

    def after(row: dict[str, Any]) -> dict[str, Any]:
        written = int(row.get("num_generated_tokens") or 0)
        return {
            "place": row["place"],
            "text": row["generated_text"],
            "is_cut": written >= config.max_tokens,
            "prompt_tokens": int(row.get("num_input_tokens") or 0),
            "completion_tokens": written,
        }

    processor_config = ray.data.llm.vLLMEngineProcessorConfig(
        model_source=config.model,
        batch_size=config.batch_size,
        concurrency=config.workers,
        apply_chat_template=is_chat,
        has_image=False,
    )
    return ray.data.llm.build_processor(processor_config, preprocess=before, postprocess=after)
