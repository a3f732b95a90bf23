"""The synthesis part of a recipe: who writes phase 3's files, from what, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# An instruct model replies to a prompt, a base model goes on from the head of a file.
Mode = Literal["instruct", "completion"]


@dataclass(frozen=True)
class CheckpointTeacher:
    """This run's own checkpoint as a base model that continues the head of a seed."""

    phase: str
    kind: Literal["checkpoint"] = "checkpoint"
    batch_size: int = 16

    @property
    def mode(self) -> Mode:
        return "completion"


@dataclass(frozen=True)
class VllmTeacher:
    """A model that vLLM runs in the process that asks.

    `model` is a folder, or a Hugging Face name, which lets vLLM download it. `max_model_len`
    bounds prompt and answer together, in tokens (None: the model's own); it changes no answer, and
    prompts that do not fit are dead letters. `dollars_per_hour` of one worker's machine gives the
    meter its costs, from the first answers on.
    """

    model: str
    kind: Literal["vllm"] = "vllm"
    mode: Mode = "instruct"
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    tensor_parallel: int = 1
    max_model_len: int | None = None
    max_in_flight: int = 1024
    gpu_memory_share: float = 0.9
    dollars_per_hour: float | None = None


@dataclass(frozen=True)
class ServerTeacher:
    """OpenAI-compatible servers (vLLM, SGLang, a hosted one), all of the same model.

    `max_in_flight` counts for each server. `api_key_variable` names the environment variable
    that holds the key, which is written nowhere.
    """

    model: str
    urls: tuple[str, ...]
    kind: Literal["server"] = "server"
    mode: Mode = "instruct"
    max_in_flight: int = 256
    timeout_seconds: float = 1_800.0
    api_key_variable: str | None = None
    dollars_per_million_prompt_tokens: float | None = None
    dollars_per_million_new_tokens: float | None = None


@dataclass(frozen=True)
class Synthesis:
    """Synthetic documents written from high-scoring seeds (paper section 3.3).

    Attributes:
      seeds: the selection they are drawn from, without replacement; `num_seeds` of them (None:
        until it is exhausted).
      prompt: of instruct teachers: `oss_instruct`, `rewrite`, or the path of a template file.
      max_seed_bytes: of a seed that an instruct teacher is shown; of a longer file, whole lines.
      head_tokens: of a seed that a base teacher goes on from, this project's tokens.
      max_similarity: what shares this much or more (5-grams of words) with its seed, with another
        synthetic document or with the corpus is a copy.
      run_python: keep a Python file only where it runs in the sandbox, top level and imports.
    """

    teacher: CheckpointTeacher | VllmTeacher | ServerTeacher
    seeds: str
    num_seeds: int | None = None
    language_shares: dict[str, float] = field(default_factory=lambda: {"Python": 0.5})
    prompt: str = "oss_instruct"
    max_seed_bytes: int = 12_288
    head_tokens: int = 128
    max_new_tokens: int = 4_096
    temperature: float = 0.6
    top_p: float = 0.9
    min_new_tokens: int = 32
    max_similarity: float = 0.7
    run_python: bool = False
