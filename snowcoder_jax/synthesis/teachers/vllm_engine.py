"""A model that vLLM runs in this process, without a barrier between requests.

Needs the environment of `launch/vllm/`; nothing else of this project imports torch or vLLM. The
scheduler and the model run in processes of vLLM's own, so they go on while answers are stored;
`vllm_plugin.py` ends them with this one.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.recipe_synthesis import VllmTeacher
from snowcoder_jax.synthesis.requests import Answer, Finish, Request
from snowcoder_jax.synthesis.teachers.identity import is_folder_name

# Requests handed to the engine between two looks at what it has done: a burst of thousands would
# hold answers back.
MAX_NEW_PER_STEP = 64


class VllmEngine:
    """The model of `settings`, ready to answer.

    Each request is drawn with its own random seed. vLLM's kernels may still round differently in
    another batch or on another GPU, so at a temperature of 0, too, answers of two runs may differ.

    Raises:
      InputError: the model cannot be read, is not known to vLLM, or its chat template is missing
        or fails.
      MachineError: this environment has no vLLM; the engine does not start (its own lines,
        printed before, say why).
    """

    def __init__(self, settings: VllmTeacher, *, name: str, fingerprint: str) -> None:
        # vLLM reports its use to its makers unless told not to.
        os.environ.update(VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        self.name = name
        self.mode = settings.mode
        self.fingerprint = fingerprint
        self._max_in_flight = settings.max_in_flight
        model = settings.model
        if is_folder_name(model):
            model = os.path.expanduser(model)
            os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            self._tokenizer = _load_tokenizer(model, settings.revision)
            # Told before the minutes that weights may take.
            fault = self._template_fault() if self.mode == "instruct" else ""
            if not fault:
                self._engine = _start_engine(model, settings)
        except ImportError as e:
            raise MachineError(
                f"synthesis.teacher: {sys.executable} has no vLLM ({e}). Make its environment as "
                "launch/vllm/README.md says, and start the worker with the interpreter there."
            ) from e
        except (ValueError, OSError) as e:
            raise InputError(
                f"synthesis.teacher.model: vLLM cannot load {model} ({_first_line(e)}). Name a "
                "whole model folder, or a Hugging Face name that this machine can reach."
            ) from e
        except RuntimeError as e:
            raise MachineError(
                f"synthesis.teacher: vLLM does not start with {model} ({_first_line(e)}); its own "
                "lines above say why. If memory is short: more GPUs (tensor_parallel), a smaller "
                "max_model_len, or a larger gpu_memory_share."
            ) from e
        if fault:
            raise InputError(f"synthesis.teacher.model: {model} {fault}")
        self._max_model_len = int(self._engine.model_config.max_model_len)
        # A base model ends a file with any of its markers, not only with its last token.
        self._stop_ids = (
            [i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special]
            if settings.mode == "completion"
            else []
        )

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """As `Teacher.answers`.

        Raises:
          MachineError: the engine died.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        source = iter(requests)
        in_flight: dict[str, Request] = {}
        try:
            while True:
                room = min(MAX_NEW_PER_STEP, self._max_in_flight - len(in_flight))
                num_new = 0
                for request in itertools.islice(source, room):
                    num_new += 1
                    error = self._submit(request)
                    if error:
                        yield Answer(request.key, "", 0, "error", error)
                    else:
                        in_flight[request.key] = request
                if in_flight:
                    for output in self._engine.step():
                        if output.finished:
                            yield _answer(in_flight.pop(output.request_id).key, output)
                elif not num_new:
                    return
        except EngineDeadError as e:
            in_flight.clear()
            raise MachineError(
                "synthesis.teacher: vLLM's engine died; its own lines above say why. Answers so "
                "far are kept: start the same command again."
            ) from e
        finally:
            if in_flight:
                self._engine.abort_request(list(in_flight))

    def close(self) -> None:
        """End vLLM's processes."""
        self._engine.engine_core.shutdown()

    def _submit(self, request: Request) -> str:
        """Hand a request to the engine; "" or what is wrong with it."""
        try:
            prompt_ids = self._prompt_ids(request.prompt)
        except Exception as e:  # a template is a program, and may fail at this prompt alone
            return f"refused: {_first_line(e)}"
        sampling = request.sampling
        length = len(prompt_ids) + sampling.max_new_tokens
        if length > self._max_model_len:
            return f"context: {length} tokens exceed the model's {self._max_model_len}"
        try:
            self._engine.add_request(
                request.key, {"prompt_token_ids": prompt_ids}, self._sampling_params(request)
            )
        except ValueError as e:
            return f"refused: {_first_line(e)}"
        return ""

    def _template_fault(self) -> str:
        """What is wrong with the model's chat template, with a mend, or ""."""
        if not self._tokenizer.chat_template:
            return (
                "has no chat template, so it is a base model. Set synthesis.teacher.mode to "
                "completion, or name an instruct model (its chat_template.jinja, or "
                "`chat_template` in its tokenizer_config.json)."
            )
        try:
            self._prompt_ids("Write a file.")
        except Exception as e:  # whatever a program in a model's folder does
            return (
                f"has a chat template that fails ({type(e).__name__}: {_first_line(e)}). Mend its "
                "chat_template.jinja (or `chat_template` in its tokenizer_config.json): it has to "
                "take one message of the user; of several templates one is called `default`."
            )
        return ""

    def _prompt_ids(self, prompt: str) -> list[int]:
        if self.mode == "completion":
            ids: list[int] = self._tokenizer(prompt)["input_ids"]
            return ids
        ids = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        return ids

    def _sampling_params(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        return SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.temperature else 1.0,
            seed=request.random_seed if sampling.temperature else None,
            stop_token_ids=self._stop_ids,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _answer(key: str, output: Any) -> Answer:
    written = output.outputs[0]
    num_prompt_tokens = len(output.prompt_token_ids)
    if written.finish_reason not in ("stop", "length"):
        error = f"aborted: the engine ended it with {written.finish_reason!r}"
        return Answer(key, "", 0, "error", error, num_prompt_tokens=num_prompt_tokens)
    finish: Finish = written.finish_reason
    num_tokens = len(written.token_ids)
    return Answer(key, written.text, num_tokens, finish, num_prompt_tokens=num_prompt_tokens)


def _load_tokenizer(model: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model, revision=revision)


def _start_engine(model: str, settings: VllmTeacher) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    is_cpu = current_platform.is_cpu()
    arguments = EngineArgs(
        model=model,
        revision=settings.revision,
        tokenizer_revision=settings.revision,
        dtype=settings.dtype,
        tensor_parallel_size=settings.tensor_parallel,
        max_model_len=settings.max_model_len,
        gpu_memory_utilization=settings.gpu_memory_share,
        enable_prefix_caching=True,
        # Compiling pays on GPUs; on CPUs, where only tests run, it takes minutes. And there a
        # prompt read in chunks ends the engine, if its draw has a seed of its own.
        enforce_eager=is_cpu,
        enable_chunked_prefill=not is_cpu,
        disable_log_stats=True,
    )
    # vLLM sizes its batches for throughput in this context, and for latency in others.
    return LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
