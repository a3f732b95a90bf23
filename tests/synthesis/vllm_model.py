"""A tiny model that this project exports, a vLLM server of it, and asks of it, for the tests."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax import tokenizer as tokenizers
from snowcoder_jax.model import decoder
from snowcoder_jax.model.huggingface import export_llama
from snowcoder_jax.recipe import Model
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, Synthesis, VllmTeacher
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.teachers.identity import teacher_fingerprint

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("SNOWCODER_VLLM_PYTHON", str(ROOT / ".venv-vllm" / "bin" / "python"))
# Ours goes where the tests' environment has its packages, vLLM's where its own are.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
VOCAB_SIZE = 512
# vLLM's attention on CPUs wants heads of 32 or more.
CONFIG = Model(
    hidden_dim=64,
    mlp_dim=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    max_sequence_length=1024,
    tie_embeddings=False,
    initializer_range=0.3,
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}:\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)


def write_model(folder: Path, *, template: str = CHAT_TEMPLATE) -> str:
    """The folder of a random model; the tokenizer is in `folder`.tokenizer."""
    tokenizer_folder = folder.with_suffix(".tokenizer")
    texts = [path.read_text() for path in sorted((ROOT / "snowcoder_jax").glob("*.py"))]
    tokenizers.train(texts, VOCAB_SIZE, str(tokenizer_folder))
    if template:
        (tokenizer_folder / "chat_template.jinja").write_text(template)
    params = model_params(str(tokenizer_folder))
    export_llama(params, CONFIG, VOCAB_SIZE, str(tokenizer_folder), str(folder))
    return str(folder)


def model_params(tokenizer_folder: str) -> decoder.Params:
    """Random, but never likeliest are parts of characters: decoders write those differently."""
    params = decoder.init_params(CONFIG, VOCAB_SIZE, seed=7)
    tokenizer = tokenizers.Tokenizer.load(tokenizer_folder)
    broken = [i for i in range(VOCAB_SIZE) if not tokenizer.decode([i]).isascii()]
    params["head"] = params["head"].at[np.array(broken)].set(0.0)
    return params


def make_ask(
    folder: Path,
    teacher: CheckpointTeacher | VllmTeacher | ServerTeacher,
    *,
    num_seeds: int,
    tokenizer: str = "",
    max_new_tokens: int = 48,
    long_seed: int = -1,
    bad_seed: int = -1,
    temperature: float = 0.0,
) -> Ask:
    """`ask.json` and one part of seeds; seed `long_seed` is a long one, and a fake server
    refuses seed `bad_seed`.
    """
    folder.mkdir(exist_ok=True)
    numbers = range(num_seeds)
    texts = [
        f"def part_{i}(x):\n    return {i} * x\n\n\n" * (400 if i == long_seed else 4)
        for i in numbers
    ]
    if bad_seed >= 0:
        texts[bad_seed] += "# fake=400\n"
    table = {
        "id": [f"{i:032x}" for i in numbers],
        "repo": ["owner/project"] * num_seeds,
        "path": [f"part{i}.py" for i in numbers],
        "language": ["Python"] * num_seeds,
        "license": ["MIT"] * num_seeds,
        "score": [0.9] * num_seeds,
        "draw": pa.array(numbers, pa.uint64()),
        "text": texts,
    }
    (folder / "seeds").mkdir(exist_ok=True)
    pq.write_table(pa.table(table), folder / "seeds" / "part-00000.parquet")
    template = folder / "short.yaml"
    template.write_text("prompt: |\n  In {{language}}, in one block of ```{{tag}}:\n\n  {{seed}}\n")
    synthesis = Synthesis(
        teacher,
        seeds="best",
        prompt=str(template),
        head_tokens=64,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        min_new_tokens=1,
    )
    fingerprint = teacher_fingerprint(teacher)
    ask = Ask(synthesis, 0, fingerprint, str(folder / "seeds"), str(folder / "answers"), tokenizer)
    ask.save(str(folder))
    return ask


def start_worker(ask_folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [PYTHON, "-m", "snowcoder_jax.synthesis.worker", str(ask_folder), *arguments]
    log = open(ask_folder / "worker.log", "a")  # noqa: SIM115 (the process has it)
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, text=True)


class VllmServer:
    """vLLM's own OpenAI-compatible server; usable before it is up, on a port it keeps."""

    def __init__(self, model: str, log: Path, name: str = "tiny") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
        self._command += ["--served-model-name", name, "--dtype", "float32", "--enforce-eager"]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--generation-config", "vllm"]
        self._command += ["--no-enable-chunked-prefill"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, env=ENVIRONMENT, stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> VllmServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
