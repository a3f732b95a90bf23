"""The worker as a command: killed, stopped, doubled, in an environment without JAX."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asking import make_ask, requests_of, write_seeds
from fake_server import FakeServer

from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, VllmTeacher
from snowcoder_jax.synthesis import runner, subprocess_worker
from snowcoder_jax.synthesis.answers import AnswerIndex, as_key
from snowcoder_jax.synthesis.ask import Ask

ROOT = Path(__file__).parents[2]


def start(ask_folder: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "snowcoder_jax.synthesis.worker", str(ask_folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def ask_of(root: Path, server: FakeServer, num_seeds: int, **teacher: object) -> Ask:
    write_seeds(root / "seeds", num_seeds)
    ask = make_ask(root, server.url)
    settings = dataclasses.replace(ask.synthesis.teacher, **teacher)  # type: ignore[type-var]
    synthesis = dataclasses.replace(ask.synthesis, teacher=settings)
    ask = dataclasses.replace(ask, synthesis=synthesis)
    ask.save(str(root / "ask"))
    return ask


def stored_keys(ask: Ask) -> set[str]:
    return {as_key(number) for number in AnswerIndex(ask.store).keys.tolist()}


def asked_keys(ask: Ask, server: FakeServer) -> list[str]:
    """The keys of the requests in the server's log, in order."""
    key_of = {(r.prompt, r.random_seed): r.key for r in requests_of(ask)}
    return [key_of[row["prompt"], row["seed"]] for row in server.asked()]


def wait_for(what: object, process: subprocess.Popen[str], until: int) -> None:
    """Until `what()` is `until` at least, or the process has ended."""
    deadline = time.monotonic() + 60
    while what() < until and process.poll() is None:  # type: ignore[operator]
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.002)


def test_a_worker_asks_its_share_and_tells_of_it(tmp_path: Path) -> None:
    with FakeServer(log=tmp_path / "log") as server:
        ask = ask_of(tmp_path, server, 40)
        code, errors = finish(start(tmp_path / "ask", "--worker", "1", "--num-workers", "2"))
        assert code == 0, errors
        share = [r.key for r in requests_of(ask) if int(r.key, 16) % 2 == 1]
        assert sorted(asked_keys(ask, server)) == sorted(share)
        assert stored_keys(ask) == set(share)
    assert f"worker 1: {len(share)} answers, 0 dead letters" in errors


def test_sigterm_stores_what_came_and_asks_to_be_started_again(tmp_path: Path) -> None:
    with FakeServer("--delay", "0.05", log=tmp_path / "log") as server:
        ask = ask_of(tmp_path, server, 200, max_in_flight=4)
        worker = start(tmp_path / "ask")
        wait_for(lambda: len(server.asked()), worker, 20)
        worker.terminate()
        code, errors = finish(worker)
        assert code == 75, errors
        assert "start the same command again" in errors
        assert 200 > len(stored_keys(ask)) >= 12
        assert len(list(Path(ask.store).glob("*.index.npz"))) == 1


# A worker whose uploads take long, and that says when the first begins.
SLOW_UPLOADS = """
import os, sys, time
from snowcoder_jax import storage
from snowcoder_jax.synthesis.worker import main
upload = storage._upload
def slow(local, url):
    open(os.environ["UPLOADING"], "w").close()
    time.sleep(0.7)
    upload(local, url)
storage._upload = slow
sys.exit(main())
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_stop_during_the_last_upload_costs_nothing(
    tmp_path: Path, first: signal.Signals
) -> None:
    (tmp_path / "store").mkdir()
    uploading = tmp_path / "uploading"
    with FakeServer("--delay", "0.05", log=tmp_path / "log") as server:
        ask = ask_of(tmp_path, server, 200, max_in_flight=4)
        ask = dataclasses.replace(ask, store=f"file://{tmp_path}/store")
        ask.save(str(tmp_path / "ask"))
        worker = subprocess.Popen(
            [sys.executable, "-c", SLOW_UPLOADS, str(tmp_path / "ask")],
            cwd=ROOT,
            env={**os.environ, "UPLOADING": str(uploading)},
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: len(server.asked()), worker, 20)
        worker.send_signal(first)
        wait_for(lambda: uploading.exists(), worker, 1)
        worker.terminate()
        code, errors = finish(worker)
    assert code == 75, errors
    assert len(stored_keys(ask)) >= 12


@pytest.mark.parametrize("written", [{"code": "0123456789abcdef"}, {}])
def test_a_worker_of_another_version_asks_nothing(tmp_path: Path, written: dict[str, str]) -> None:
    with FakeServer(log=tmp_path / "log") as server:
        ask_of(tmp_path, server, 4)
        path = tmp_path / "ask" / "ask.json"
        told = json.loads(path.read_text())
        del told["code"]
        path.write_text(json.dumps({**told, **written}))
        exit_code, errors = finish(start(tmp_path / "ask"))
        assert exit_code == 2
        assert "Take the same version on all machines" in errors
        assert server.asked() == []


def test_bad_prompts_are_dead_letters_and_the_others_are_answered(tmp_path: Path) -> None:
    with FakeServer() as server:
        ask = ask_of(tmp_path, server, 10)
        write_seeds(tmp_path / "seeds", 3, num_parts=1, words="fake=context")
        code, errors = finish(start(tmp_path / "ask"))
        assert code == 0, errors
    facts = runner.summarize(ask)
    # The second part still has its five good ones.
    assert (facts["answered"], facts["dead_letters"]["counts"]) == (5, {"context": 3})
    assert "5 answers, 3 dead letters (3 context)" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--worker", "2", "--num-workers", "2"), "--worker 2: is not from 0 to 1"),
        (("--worker", "-1"), "--worker -1: is not from 0"),
    ],
)
def test_a_worker_that_is_none_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, errors = finish(start(tmp_path, *arguments))
    assert code == 2
    assert message in errors


def test_a_folder_without_an_ask_is_refused(tmp_path: Path) -> None:
    code, errors = finish(start(tmp_path))
    assert code == 2
    assert "ask.json: is not there" in errors


def test_a_checkpoint_is_not_asked_by_workers(tmp_path: Path) -> None:
    write_seeds(tmp_path / "seeds", 3)
    ask = make_ask(tmp_path, teacher=CheckpointTeacher("general"))
    ask.save(str(tmp_path / "ask"))
    code, errors = finish(start(tmp_path / "ask"))
    assert code == 2
    assert "is asked by `snowcoder synthesize RECIPE` itself" in errors


def test_it_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    with FakeServer("--delay", "0.1", log=tmp_path / "log") as server:
        ask_of(tmp_path, server, 400, max_in_flight=4)
        worker = start(tmp_path / "ask", "--watch-stdin", stdin=subprocess.PIPE)
        wait_for(lambda: len(server.asked()), worker, 5)
        assert worker.stdin is not None
        worker.stdin.close()
        worker.stdin = None
        assert finish(worker)[0] == 75


def test_no_part_of_it_needs_jax_beam_or_what_only_they_have() -> None:
    absent = ("jax", "jaxlib", "flax", "optax", "orbax", "apache_beam", "tree_sitter", "torch")
    code = (
        f"import sys\nfor name in {(*absent, 'ahocorasick_rs', 'transformers')!r}:\n"
        "    sys.modules[name] = None\n"
        "import snowcoder_jax.synthesis.worker, snowcoder_jax.synthesis.teachers.servers\n"
        "import snowcoder_jax.synthesis.subprocess_worker\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def vllm_ask(root: Path, model: str = "owner/model") -> Ask:
    write_seeds(root / "seeds", 3)
    return make_ask(root, teacher=VllmTeacher(model))


def never(_phase: str) -> None:
    raise AssertionError("no checkpoint is wanted")


def fake_python(path: Path, script: str) -> str:
    """An executable in the place of vLLM's interpreter."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_without_the_environment_of_vllm_the_ways_to_go_on_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(subprocess_worker.PYTHON_VARIABLE, str(tmp_path / "nowhere"))
    folder = tmp_path / "ask"
    with pytest.raises(
        MachineError, match=r"nowhere is not there\. Make it: .*--editable \. .*worker\.sh"
    ):
        runner.ask_from_run(str(folder), vllm_ask(tmp_path), recipe=None, load_params=never)  # type: ignore[arg-type]
    assert (folder / "ask.json").exists()  # for the workers elsewhere


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 2", InputError),
        ("exit 1", MachineError),
        ("exit 75", KeyboardInterrupt),
        ("kill -9 $$", MachineError),
        ("exit 0", MachineError),  # but it left requests without an answer
    ],
)
def test_what_became_of_the_worker_is_what_becomes_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type[BaseException]
) -> None:
    python = fake_python(tmp_path / "python", script)
    monkeypatch.setenv(subprocess_worker.PYTHON_VARIABLE, python)
    with pytest.raises(error):
        runner.ask_from_run(
            str(tmp_path / "ask"),
            vllm_ask(tmp_path),
            recipe=None,  # type: ignore[arg-type]
            load_params=never,
        )


@pytest.mark.slow
def test_five_kills_of_500_requests_and_none_is_asked_again_after_it_was_stored(
    tmp_path: Path,
) -> None:
    draw = random.Random(5)
    with FakeServer("--delay", "0.02", log=tmp_path / "log") as server:
        ask = ask_of(tmp_path, server, 500, max_in_flight=8)
        num_asked = 0
        before: set[str] = set()
        for kill in range(6):
            worker = start(tmp_path / "ask")
            if kill < 5:
                until = num_asked + draw.randrange(1, 60)
                wait_for(lambda: len(server.asked()), worker, until)
                time.sleep(draw.uniform(0, 0.03))
                assert worker.poll() is None, "it was through before it was killed"
                worker.send_signal(signal.SIGKILL)
            code, errors = finish(worker)
            assert code == (-signal.SIGKILL if kill < 5 else 0), errors
            asked = asked_keys(ask, server)[num_asked:]
            assert len(set(asked)) == len(asked)
            assert not set(asked) & before
            num_asked += len(asked)
            before = stored_keys(ask)
        assert before == {request.key for request in requests_of(ask)}
        rows = AnswerIndex(ask.store).find(sorted(before))
        assert len({row.answer.text for row in rows.values()}) == 500
        # A kill costs at most what was in flight, and as much that had come and was being stored.
        assert num_asked <= 500 + 5 * 2 * 8


@pytest.mark.slow
def test_of_two_workers_one_dies_and_starts_again(tmp_path: Path) -> None:
    with FakeServer("--delay", "0.02", log=tmp_path / "log") as server:
        ask = ask_of(tmp_path, server, 300, max_in_flight=4)
        shares = [("--worker", str(k), "--num-workers", "2") for k in range(2)]
        workers = [start(tmp_path / "ask", *share) for share in shares]
        wait_for(lambda: len(server.asked()), workers[0], 60)
        workers[0].send_signal(signal.SIGKILL)
        assert finish(workers[0])[0] == -signal.SIGKILL
        assert finish(workers[1])[0] == 0
        stored = stored_keys(ask)
        assert {k for k in stored if int(k, 16) % 2} == {
            r.key for r in requests_of(ask) if int(r.key, 16) % 2
        }
        num_asked = len(server.asked())
        code, errors = finish(start(tmp_path / "ask", *shares[0]))
        assert code == 0, errors
        assert not set(asked_keys(ask, server)[num_asked:]) & stored
        assert runner.summarize(ask)["answered"] == 300
        assert len(asked_keys(ask, server)) <= 300 + 2 * 4


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    with FakeServer("--delay", "0.02", log=tmp_path / "log") as server:
        ask = ask_of(tmp_path, server, 200, max_in_flight=4)
        worker = start(tmp_path / "ask")
        wait_for(lambda: len(server.asked()), worker, 80)
        server.kill()
        time.sleep(1.0)
        assert worker.poll() is None
        server.start()
        code, errors = finish(worker)
        assert code == 0, errors
        assert runner.summarize(ask)["answered"] == 200
