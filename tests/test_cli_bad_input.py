"""Bad input at the command: one clear message with the mend, the right exit code, no traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from snowcoder_jax import cli, storage
from snowcoder_jax.errors import EXIT_INPUT, EXIT_MACHINE

ROOT = Path(__file__).parent.parent
LOCAL = str(ROOT / "configs/local.yaml")


@pytest.fixture
def code_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "repo").mkdir(parents=True)
    (folder / "repo" / "a.py").write_text("x = 1\n" * 20)
    return folder


def refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str, verb: str = "run"
) -> str:
    """The message of a run that is refused as the user's fault before any work."""
    code = cli.main([verb, LOCAL, f"output={tmp_path}/out", *arguments])
    text = capsys.readouterr().err
    assert code == EXIT_INPUT, text
    assert "Traceback" not in text
    assert not (tmp_path / "out" / "corpora").exists()
    return text


def sources(path: object) -> str:
    return f"sources=[{{name: code, kind: folder, path: {path}, license: MIT}}]"


def test_a_missing_and_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = refused(capsys, tmp_path, sources(tmp_path / "none"))
    assert "sources.code.path" in text
    assert "Name an existing folder" in text
    (tmp_path / "empty").mkdir()
    text = refused(capsys, tmp_path, sources(tmp_path / "empty"))
    assert "sources.code.path" in text
    assert "empty" in text


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("annotator.encoder", "package:nope_x", "the package nope_x is not installed. Install it"),
        ("annotator.encoder", "FOLDER/code", "FOLDER/code holds no config.json. Name the folder"),
        ("annotator.encoder", "owner/name", "there is no folder owner/name. Nothing is downloaded"),
        ("annotator.encoder", "FOLDER", "FOLDER/config.json: `model_type` is None, but"),
        ("annotator.positives", "[nope://b/x.jsonl]", "nope://b/x.jsonl: this storage cannot be"),
        ("corpus.contamination.benchmarks", "[nope://b/x]", "nope://b/x: this storage cannot"),
        ("corpus.opt_out", "nope://b/x", "nope://b/x: this storage cannot be reached ("),
        ("output", "nope://b/x", "nope://b/x: this storage cannot be reached ("),
        ("output", "FOLDER/config.json", "FOLDER/config.json: a file stands where a folder is"),
        ("output", "/proc/x", "`/proc/x` cannot be written (No such file or directory). Choose"),
    ],
)
def test_a_fault_is_told_once_with_its_own_mend(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    code_folder: Path,
    field: str,
    value: str,
    told: str,
) -> None:
    (tmp_path / "config.json").write_text("{}")
    value, told = (text.replace("FOLDER", str(tmp_path)) for text in (value, told))
    text = refused(capsys, tmp_path, sources(code_folder), f"{field}={value}")
    title, fault = text.splitlines()
    assert title.endswith("1 fault(s) on this machine")
    assert fault.startswith(f"  {field}: {told}")
    assert text.count(f"{field}: ") == 1
    assert ".." not in fault
    assert ".probe" not in fault


def test_all_that_names_a_storage_without_its_package_is_told_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = refused(capsys, tmp_path, sources("nope://a"), "corpus.opt_out=nope://b")
    assert "\n  sources.code.path: nope://a: this storage cannot be reached" in text
    assert "\n  corpus.opt_out: nope://b: this storage cannot be reached" in text


def test_an_output_inside_a_source(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, code_folder: Path
) -> None:
    for inside in (code_folder, code_folder / "repo", code_folder / "new"):
        arguments = [sources(code_folder), f"output={inside}"]
        assert cli.main(["check", LOCAL, *arguments]) == EXIT_INPUT
        assert "lies inside the source `code`" in capsys.readouterr().err
    # Beside it, with a name that begins alike.
    assert cli.main(["check", LOCAL, sources(code_folder), f"output={code_folder}2"]) == 0


def test_unknown_field_and_phase(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = refused(capsys, tmp_path, "corpus.num_shard=3", "phases.enhanced.starts_from=begin")
    assert "corpus.num_shard: no such field. Did you mean `num_shards`?" in text
    assert refused(capsys, tmp_path, "phases.enhanced.starts_from=continue") != ""


def test_several_faults_of_the_machine_come_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = refused(
        capsys,
        tmp_path,
        sources(tmp_path / "none"),
        "annotator.encoder=Snowflake/snowflake-arctic-embed-m",
        "annotator.positives=[shipped_problem]",
        "corpus.contamination.benchmarks=[nowhere.jsonl]",
        verb="check",
    )
    assert "4 fault(s)" in text
    for field in (
        "sources.code.path",
        "annotator.encoder",
        "annotator.positives",
        "corpus.contamination.benchmarks",
    ):
        assert field in text
    assert "shipped_problems" in text


def test_the_full_recipe_names_each_placeholder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = str(ROOT / "configs/arctic_snowcoder_1b3.yaml")
    assert cli.main(["check", config, f"output={tmp_path}"]) == EXIT_INPUT
    text = capsys.readouterr().err
    for field in ("sources.the_stack.path", "annotator.encoder"):
        assert field in text
    assert text.count("is a placeholder") == 6


def test_an_output_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, code_folder: Path
) -> None:
    (tmp_path / "file").write_text("")
    code = cli.main(["run", LOCAL, sources(code_folder), f"output={tmp_path}/file"])
    text = capsys.readouterr().err
    assert code == EXIT_INPUT
    assert "output" in text
    # Root may write anywhere but where the kernel itself refuses.
    code = cli.main(["run", LOCAL, sources(code_folder), "output=/proc/snowcoder"])
    assert code == EXIT_INPUT
    assert "/proc/snowcoder" in capsys.readouterr().err


def test_a_source_of_nothing_usable_says_what_it_held(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Not text, too big, a broken archive: ledger rows, and a message as nothing is left."""
    repo = tmp_path / "code" / "repo"
    repo.mkdir(parents=True)
    (repo / "binary.py").write_bytes(b"\x00\x01" * 100)
    (repo / "latin.py").write_bytes(b"# \xa4\xff\xfe\xf0\n" * 9)
    with open(repo / "huge.py", "wb") as f:
        f.truncate(200_000_000)
    (tmp_path / "code" / "broken.zip").write_bytes(b"PK\x03\x04" + b"x" * 100)
    cut = io.BytesIO()
    with tarfile.open(fileobj=cut, mode="w:gz") as tar:
        tar.add(repo / "latin.py", "latin.py")
    (tmp_path / "code" / "cut.tar.gz").write_bytes(cut.getvalue()[:40])
    code = cli.main(["prepare", LOCAL, sources(tmp_path / "code"), f"output={tmp_path}/out"])
    text = capsys.readouterr().err
    assert code == EXIT_INPUT
    assert "sources.code" in text
    assert "Traceback" not in text
    for reason in ("binary: 1", "too_large: 1", "undecodable: 1", "broken_archive: 2"):
        assert reason in text, text


def test_a_batch_that_the_devices_do_not_divide(tmp_path: Path, code_folder: Path) -> None:
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "snowcoder_jax.cli", "check", LOCAL, sources(code_folder)]
    command += [f"output={tmp_path}", "phases.continued.batch_size=12"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert result.returncode == EXIT_INPUT
    assert "phases.continued.batch_size" in result.stderr
    assert "phases.general" not in result.stderr


def test_what_cannot_train_is_told_before_the_corpus_is_made(
    tmp_path: Path, code_folder: Path
) -> None:
    """The kernel, a mesh that does not divide the model, and the batch: all at once."""
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=6",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "snowcoder_jax.cli", "check", LOCAL, sources(code_folder)]
    command += [f"output={tmp_path}", "hardware.mesh.tensor=3", "hardware.attention_kernel=splash"]
    command += ["hardware.microbatches=8"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert result.returncode == EXIT_INPUT
    assert "hardware.mesh.tensor: 3 does not divide a dim of" in result.stderr
    assert "splash cannot compute this attention: it does not run on cpu" in result.stderr
    assert "phases.continued.batch_size" in result.stderr
    # Each says where and how to mend it, and says it once.
    for told in ("hardware.mesh.tensor:", "phases.continued.batch_size:"):
        assert result.stderr.count(told) == 1
    assert "hardware.attention_kernel: for sequences of 256: splash" in result.stderr
    assert "does not run on cpu. Set it to auto for the best one that can.\n" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [1, 2])
def test_a_full_disk_ends_with_one_message(tmp_path: Path, megabytes: int) -> None:
    repo = tmp_path / "code" / "repo"
    repo.mkdir(parents=True)
    for number, path in enumerate(sorted(Path(os.__file__).parent.glob("*.py"))):
        (repo / f"{number}.py").write_bytes(path.read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    snowcoder = (
        f"{sys.executable} -m snowcoder_jax.cli prepare {LOCAL} '{sources(tmp_path / 'code')}'"
    )
    script = (
        f"mount -t tmpfs -o size={megabytes}m none {out} && "
        f"{snowcoder} output={out} corpus.num_shards=2 tokenizer.vocab_size=1000"
    )
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == EXIT_MACHINE, result.stderr
    assert "disk is full" in result.stderr
    assert "Traceback" not in result.stderr


def test_two_runs_of_one_recipe_do_not_meet(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, code_folder: Path
) -> None:
    from snowcoder_jax.run import folder_lock

    with folder_lock(storage.join(str(tmp_path), "runs", "local")):
        command = [sys.executable, "-m", "snowcoder_jax.cli", "run", LOCAL, sources(code_folder)]
        result = subprocess.run(
            [*command, f"output={tmp_path}"], capture_output=True, text=True, cwd=ROOT
        )
    assert result.returncode == EXIT_INPUT
    assert "another process is running this recipe" in result.stderr
