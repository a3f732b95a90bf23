"""The real vLLM engine, in its own environment: in a worker, and behind its HTTP server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from vllm_model import (
    CHAT_TEMPLATE,
    CONFIG,
    ENVIRONMENT,
    PYTHON,
    VOCAB_SIZE,
    VllmServer,
    make_ask,
    model_params,
    start_worker,
    write_model,
)

from snowcoder_jax.evaluation.sampler import Sampler
from snowcoder_jax.recipe_synthesis import ServerTeacher, VllmTeacher
from snowcoder_jax.synthesis import prompts, runner, seed_parts
from snowcoder_jax.synthesis.answers import AnswerIndex
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers import Teacher
from snowcoder_jax.synthesis.teachers.servers import ServersTeacher
from snowcoder_jax.tokenizer import END_OF_TEXT, SPECIAL_TOKENS, Tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not Path(PYTHON).exists(),
        reason="vLLM has its own environment: `bash launch/test.sh --all` makes it",
    ),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("teacher") / "tiny")


def requests_of(ask: Ask) -> list[Request]:
    return list(prompts.requests(ask, seed_parts.read_seeds(ask.seeds)))


def stored(ask: Ask) -> dict[str, Answer]:
    rows = AnswerIndex(ask.store).find([request.key for request in requests_of(ask)])
    return {key: row.answer for key, row in rows.items()}


def log_of(folder: Path) -> str:
    return (folder / "worker.log").read_text()[-3000:]


def vllm_processes(parent: int) -> list[psutil.Process]:
    return psutil.Process(parent).children(recursive=True)


def test_greedy_answers_are_those_of_the_projects_own_sampler(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "ask"
    tokenizer_folder = f"{model}.tokenizer"
    teacher = VllmTeacher(model, mode="completion", dtype="float32")
    ask = make_ask(folder, teacher, num_seeds=40, tokenizer=tokenizer_folder)
    assert start_worker(folder).wait() == 0, log_of(folder)

    tokenizer = Tokenizer.load(tokenizer_folder)
    sampler = Sampler(model_params(tokenizer_folder), CONFIG, VOCAB_SIZE)
    asked = requests_of(ask)
    assert len(asked) == 40
    ids = sampler.generate(
        [tokenizer.encode(request.prompt) for request in asked],
        max_new_tokens=ask.synthesis.max_new_tokens,
        stop_ids=[tokenizer.special(name) for name in SPECIAL_TOKENS],
    )
    answers = stored(ask)
    theirs = [answers[request.key].text for request in asked]
    assert theirs == [tokenizer.decode(new) for new in ids]
    assert len(set(theirs)) > 20
    ends = [answers[request.key].finish for request in asked]
    assert ends == ["stop" if len(new) < ask.synthesis.max_new_tokens else "length" for new in ids]


def test_a_killed_worker_leaves_nothing_behind_and_the_next_asks_only_for_the_rest(
    model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "ask"
    teacher = VllmTeacher(model, dtype="float32", max_in_flight=4)
    ask = make_ask(folder, teacher, num_seeds=120, long_seed=7, temperature=0.8)
    worker = start_worker(folder)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while len(answers := stored_lines(ask)) < 10 and time.monotonic() < deadline:
        assert worker.poll() is None, log_of(folder)
        children = vllm_processes(worker.pid) or children
        time.sleep(0.02)
    worker.kill()
    worker.wait()
    assert children
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    before = stored(ask)
    assert 10 <= len(before) < 120, f"{len(answers)} lines"

    assert start_worker(folder).wait() == 0, log_of(folder)
    after = stored(ask)
    assert len(after) == 120
    assert {key: after[key] for key in before} == before
    assert len(stored_lines(ask)) == 120  # none was asked twice
    dead = {key: answer for key, answer in after.items() if answer.finish == "error"}
    too_long = [r.key for r in requests_of(ask) if len(r.seed.text) > 4000]
    assert list(dead) == too_long and len(too_long) == 1
    assert dead[too_long[0]].error.startswith("context: ")

    # The chat template was around the prompt, and each answer has a draw of its own.
    tokenizer = Tokenizer.load(f"{model}.tokenizer")
    for request in requests_of(ask)[:5]:
        assert after[request.key].num_prompt_tokens == len(tokenizer.encode(rendered(request)))
    assert len({answer.text for answer in after.values()}) > 100


def rendered(request: Request) -> str:
    """What `CHAT_TEMPLATE` makes of the prompt."""
    return f"user:\n{request.prompt}\nassistant:\n"


def stored_lines(ask: Ask) -> list[str]:
    lines: list[str] = []
    for path in Path(ask.store).glob("*.jsonl"):
        lines += path.read_text(errors="replace").splitlines()
    return lines


def test_a_base_model_asked_as_an_instruct_model_is_refused_with_a_mend(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", template="")
    folder = tmp_path / "ask"
    make_ask(folder, VllmTeacher(base, dtype="float32"), num_seeds=3)
    assert start_worker(folder).wait() == 2
    assert "has no chat template" in log_of(folder)
    assert "mode to completion" in log_of(folder)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for message in messages %}", "TemplateSyntaxError"),
        ("{{ raise_exception('A system message is wanted.') }}", "A system message is wanted."),
        ("{{ tools[0].name }}", "UndefinedError"),
        ({"tool_use": CHAT_TEMPLATE, "rag": CHAT_TEMPLATE}, "of several templates one"),
    ],
)
def test_a_chat_template_that_fails_is_told_before_the_weights_are_read(
    model: str, tmp_path: Path, template: str | dict[str, str], words: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    if isinstance(template, str):
        (broken / "chat_template.jinja").write_text(template)
    else:
        (broken / "chat_template.jinja").unlink()
        named = [{"name": name, "template": text} for name, text in template.items()]
        config = json.loads((broken / "tokenizer_config.json").read_text())
        config["chat_template"] = named
        (broken / "tokenizer_config.json").write_text(json.dumps(config))
    folder = tmp_path / "ask"
    make_ask(folder, VllmTeacher(str(broken), dtype="float32"), num_seeds=3)
    assert start_worker(folder).wait() == 2, log_of(folder)
    log = log_of(folder)
    assert "has a chat template that fails" in log and words in log
    assert "Mend its chat_template.jinja" in log
    assert "Traceback" not in log


def test_a_prompt_that_the_chat_template_refuses_is_a_dead_letter_and_no_other(
    tmp_path: Path,
) -> None:
    refusing = "{% if 'part_2(' in messages[0].content %}{{ raise_exception('not this') }}"
    model = write_model(tmp_path / "model", template=refusing + "{% endif %}" + CHAT_TEMPLATE)
    folder = tmp_path / "ask"
    ask = make_ask(folder, VllmTeacher(model, dtype="float32"), num_seeds=5)
    assert start_worker(folder).wait() == 0, log_of(folder)
    asked, answers = requests_of(ask), stored(ask)
    errors = [answers[request.key].error for request in asked]
    assert errors == ["refused: not this" if "part_2(" in r.prompt else "" for r in asked]


def test_a_context_that_is_too_small_for_all_makes_no_dead_letters(
    model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "ask"
    ask = make_ask(folder, VllmTeacher(model, dtype="float32", max_model_len=64), num_seeds=200)
    assert start_worker(folder).wait() == 2, log_of(folder)
    assert "none was answered (context: " in log_of(folder)
    assert stored(ask) == {}


# vLLM forks its processes where there are GPUs, and spawns them on CPUs.
FORKED = """
import multiprocessing, sys
import vllm.v1.engine.utils as utils, vllm.v1.executor.multiproc_executor as executor
utils.get_mp_context = executor.get_mp_context = lambda: multiprocessing.get_context("fork")
from snowcoder_jax.recipe_synthesis import VllmTeacher
from snowcoder_jax.synthesis.teachers.vllm_engine import VllmEngine
if __name__ == "__main__":
    teacher = VllmTeacher(sys.argv[1], dtype="float32", tensor_parallel=2, max_model_len=512)
    VllmEngine(teacher, name="tiny", fingerprint="tiny").close()
    print("it started")
"""


def test_a_model_of_several_gpus_starts_where_vllm_forks(model: str, tmp_path: Path) -> None:
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    environment = {**ENVIRONMENT, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    ended = subprocess.run(
        [PYTHON, str(script), model], env=environment, capture_output=True, text=True, timeout=300
    )
    assert "it started" in ended.stdout, ended.stderr[-3000:]


class KillsItsServer:
    """Asks `teacher`; after `num_answers` the server is killed and started again."""

    def __init__(self, teacher: Teacher, server: VllmServer, num_answers: int) -> None:
        self.name, self.mode, self.fingerprint = teacher.name, teacher.mode, teacher.fingerprint
        self._teacher, self._server, self._num_answers = teacher, server, num_answers

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for number, answer in enumerate(self._teacher.answers(requests), 1):
            yield answer
            if number == self._num_answers:
                self._server.kill()
                self._server.start()


def test_a_server_killed_half_way_is_waited_for_and_answers_as_the_sampler_does(
    model: str, tmp_path: Path
) -> None:
    with VllmServer(model, tmp_path / "server.log") as server:
        settings = ServerTeacher("tiny", (server.url,), max_in_flight=8, timeout_seconds=240)
        ask = make_ask(tmp_path / "ask", settings, num_seeds=60, long_seed=5)
        teacher = ServersTeacher(settings, fingerprint=ask.teacher_fingerprint)
        facts = runner.ask_all(ask, KillsItsServer(teacher, server, 25))
    assert facts["answered"] == 59 and facts["dead_letters"]["counts"] == {"context": 1}
    assert len(stored_lines(ask)) == 60  # none was asked again after its answer was stored

    tokenizer_folder = f"{model}.tokenizer"
    tokenizer = Tokenizer.load(tokenizer_folder)
    special = {tokenizer.special(name) for name in SPECIAL_TOKENS}
    answers = stored(ask)
    asked = [r for r in requests_of(ask) if answers[r.key].finish != "error"]
    ids = Sampler(model_params(tokenizer_folder), CONFIG, VOCAB_SIZE).generate(
        [tokenizer.encode(rendered(request)) for request in asked],
        max_new_tokens=ask.synthesis.max_new_tokens,
        stop_ids=[tokenizer.special(END_OF_TEXT)],
    )
    # A server leaves special tokens out of the text, and counts the one that ends it.
    ours = [tokenizer.decode([i for i in new if i not in special]) for new in ids]
    assert [answers[request.key].text for request in asked] == ours
    room = ask.synthesis.max_new_tokens
    assert [answers[r.key].num_tokens for r in asked] == [min(room, len(n) + 1) for n in ids]
