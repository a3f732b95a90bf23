"""A stage as a command, Beam's options, and the scripts for Dataflow."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import small_cloud
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
)
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines import command, options
from snowcoder_jax import cli, run
from snowcoder_jax.errors import EXIT_DONE, EXIT_INPUT, InputError, plain_error
from snowcoder_jax.recipe import Recipe, load_recipe
from snowcoder_jax.steps import build

MODULES = (
    *("ingest", "rules", "duplicates", "contamination", "secrets"),
    *("select", "tokens", "quality", "pack", "seeds", "accept"),
)
DATAFLOW = (
    "--runner=DataflowRunner",
    "--project=some-project",
    "--region=us-central1",
    "--temp_location=gs://bucket/tmp",
    "--sdk_container_image=some/image",
)


@pytest.fixture
def recipe_file(tmp_path: Path) -> str:
    code = tmp_path / "code" / "repo"
    code.mkdir(parents=True)
    for name in "abcd":
        (code / f"{name}.py").write_text(f"def {name}(x):\n    return x + '{name}'\n" * 9)
    return str(small_cloud.make_recipe(tmp_path, str(tmp_path / "code")))


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("module", MODULES)
def test_every_stage_is_a_command(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{module}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"beam_pipelines.{module}", run_name="__main__")
    assert ended.value.code == EXIT_DONE
    text = capsys.readouterr().out
    assert f"python -m beam_pipelines.{module}" in text
    assert "--runner=DataflowRunner" in text


def test_what_a_stage_does_alone_is_done_for_the_whole_run(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [recipe_file, f"output={tmp_path}/out"]
    assert command.run_stage("ingest", arguments) == EXIT_DONE
    assert command.run_stage("rules", [*arguments, "--direct_num_workers=1"]) == EXIT_DONE
    graph = build(load_recipe(recipe_file, (f"output={tmp_path}/out",)))
    done = {step.name for step in graph.steps if run.finished(step) is not None}
    assert done == {"ingest", "rules"}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out/corpora").rglob("*.parquet")}
    assert command.run_stage("rules", arguments) == EXIT_DONE
    assert "1 of 1 steps are done already" in capsys.readouterr().err
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "out/corpora").rglob("*.parquet")}
    assert before == after


def test_what_must_be_done_before_is_named_with_its_command(
    recipe_file: str, tmp_path: Path
) -> None:
    output = f"output={tmp_path}/out"
    with pytest.raises(InputError) as caught:
        command.run_stage("select", [recipe_file, output, "--step", "policy"])
    text = str(caught.value)
    assert "policy reads what is not done: ingest, rules, " in text
    assert f"python -m beam_pipelines.ingest {recipe_file} {output} --step ingest" in text
    assert command.run_stage("ingest", [recipe_file, output]) == EXIT_DONE
    with pytest.raises(InputError, match="Do `rules` first"):
        command.run_stage("select", [recipe_file, output])
    with pytest.raises(InputError, match=r"no `policies`. Did you mean `policy`\?"):
        command.run_stage("select", [recipe_file, output, "--step=policies"])
    with pytest.raises(InputError, match=r"has no step for beam_pipelines.quality"):
        command.run_stage("quality", [recipe_file, output])


def test_steps_whose_turn_has_not_come_are_left(
    tmp_path: Path, recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"sources=[{{name: code, kind: folder, path: {tmp_path}/code, license: MIT}}]"
    local = [str(small_cloud.ROOT / "configs/local.yaml"), source, f"output={tmp_path}/out"]
    command.run_stage("ingest", local)
    assert command.run_stage("secrets", local) == EXIT_DONE
    text = capsys.readouterr().err
    assert "] secrets\n" in text
    assert "synthetic secrets: not yet, it reads `rules`" in text


def test_faults_reach_the_user_as_one_message(
    recipe_file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [recipe_file, "--num_workrs=3", f"output={tmp_path}/out", "--runner", "Dataflow"]
    monkeypatch.setattr(sys, "argv", ["rules.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main("rules")
    assert ended.value.code == EXIT_INPUT
    text = capsys.readouterr().err
    assert text.startswith("beam_pipelines.rules: recipe small: ")
    assert "`--num_workrs=3` is no option of Apache Beam. Did you mean `--num_workers`?" in text
    assert "Dataflow needs `--project`" in text
    assert "Traceback" not in text


def with_options(path: str, *flags: str, output: str = "gs://bucket/x") -> Recipe:
    listed = ", ".join(f"'{flag}'" for flag in flags)
    return load_recipe(path, (f"hardware.beam_options=[{listed}]", f"output={output}"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--num_workers=many",), "argument --num_workers: invalid int value: 'many'"),
        (("--runner=DirectRunner",), "downloads a program at run time"),
        (("--runner=prism",), "downloads a program at run time"),
        (("--runner=Dataflw",), "`Dataflw` is no runner of Apache Beam. Did you mean `Dataflow"),
        (("--save_main_session",), "`--save_main_session` cannot be used"),
        ((*DATAFLOW, "--template_location=gs://b/t"), "a stage must wait for its job"),
        ((*DATAFLOW, "--dry_run=True"), "a stage must wait for its job"),
        ((*DATAFLOW, "--no_wait_until_finish"), "a stage must wait for its job"),
        (DATAFLOW[:2] + DATAFLOW[3:], "Dataflow needs `--region`. Add --region=us-central1"),
        ((*DATAFLOW, "--staging_location=/tmp"), "`--staging_location=/tmp` is no gs:// path"),
        (DATAFLOW[:-1], "workers would not have this project"),
        ((*DATAFLOW, "--extra_package=snowcoder_jax-9.whl"), "snowcoder_jax-9.whl is not there"),
        (("stray",), "`stray` is no option"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    recipe_file: str, flags: tuple[str, ...], said: str
) -> None:
    (fault,) = options.faults(with_options(recipe_file, *flags), ("rules",))
    assert said in str(fault)


def test_options_that_can_be_used_are_not_refused(recipe_file: str) -> None:
    for flags in ((), ("--direct_num_workers=2",), ("--runner=fnapirunner",), DATAFLOW):
        assert options.faults(with_options(recipe_file, *flags), ("rules",)) == []


def test_paths_of_this_machine_are_refused_where_a_stage_would_read_them(
    recipe_file: str, tmp_path: Path
) -> None:
    benchmark = "corpus.contamination.benchmarks=[/here/HumanEval.jsonl]"
    listed = f"hardware.beam_options=[{', '.join(DATAFLOW)}]"
    recipe = load_recipe(recipe_file, (listed, benchmark, f"output={tmp_path}"))
    fields = {
        stage: [fault.field for fault in options.faults(recipe, (stage,))]
        for stage in ("ingest", "rules", "contamination")
    }
    assert fields == {
        "ingest": ["output", "sources.code.path"],
        "rules": ["output"],
        "contamination": ["output", "corpus.contamination.benchmarks"],
    }
    installed = "sources=[{name: here, kind: installed}]"
    recipe = load_recipe(recipe_file, (listed, installed, "output=gs://bucket/x"))
    (fault,) = options.faults(recipe, ("ingest",))
    assert "workers have other packages installed" in str(fault)


def test_the_snowcoder_command_checks_beam_options_too(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = f"hardware.beam_options=[{', '.join(DATAFLOW)}]"
    code = cli.main(["prepare", recipe_file, f"output={tmp_path}/out", flags])
    assert code == EXIT_INPUT
    text = capsys.readouterr().err
    assert f"output: {tmp_path}/out is on this machine" in text
    assert f"sources.code.path: {tmp_path}/code is on this machine" in text


def test_a_wheel_of_another_state_of_the_code_is_refused(recipe_file: str, tmp_path: Path) -> None:
    wheel = tmp_path / "snowcoder_jax-0.1.0-py3-none-any.whl"
    recipe = with_options(recipe_file, *DATAFLOW[:-1], f"--extra_package={wheel}")
    own = "beam_pipelines/options.py"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(small_cloud.ROOT / own, own)
        archive.writestr("snowcoder_jax-0.1.0.dist-info/METADATA", "anything")
    assert options.faults(recipe, ("rules",)) == []
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("beam_pipelines/rules.py", "VALUE = 1\n")
    (fault,) = options.faults(recipe, ("rules",))
    assert "another state of the code (beam_pipelines/rules.py differs)" in str(fault)


def test_the_runner_is_named_and_no_session_is_saved() -> None:
    local = options.stage_options((), num_workers=2)
    assert local.view_as(StandardOptions).runner == "FnApiRunner"
    assert local.view_as(DirectOptions).direct_num_workers == 2
    remote = options.stage_options(DATAFLOW, num_workers=2)
    assert remote.view_as(StandardOptions).runner == "DataflowRunner"
    assert remote.view_as(DirectOptions).direct_num_workers == 1  # Beam's default
    # Unset, Beam would save it on Dataflow, and only there.
    assert remote.view_as(SetupOptions).save_main_session is False


def test_how_a_stage_runs_is_no_part_of_any_key(recipe_file: str) -> None:
    def keys(*flags: str) -> list[str]:
        return [step.key for step in build(with_options(recipe_file, *flags)).steps]

    assert keys() == keys(*DATAFLOW)


WORDS = st.sampled_from(("recipe.yaml", "corpus.num_shards=3", "--source=x", "--step=policy"))
FLAGS = st.sampled_from(
    (
        ("--project", "p"),
        ("--labels", "team=data"),
        ("--runner=DataflowRunner",),
        ("--num_workers", "3"),
        ("--no_auth",),
    )
)


@given(st.lists(st.one_of(WORDS.map(lambda word: (word,)), FLAGS), max_size=8))
def test_a_line_is_parted_into_beams_options_and_the_rest(parts: list[tuple[str, ...]]) -> None:
    flags, rest = options.split_arguments([word for part in parts for word in part])
    ours = [part[0] for part in parts if part[0] in ("recipe.yaml", "corpus.num_shards=3")]
    ours_options = [part[0] for part in parts if part[0].startswith(("--source", "--step"))]
    assert sorted(rest) == sorted(ours + ours_options)
    assert [word for word in rest if word in ours] == ours
    expected = [word for part in parts if part[0] not in rest for word in part]
    assert flags == expected
    assert not PipelineOptions(flags).view_as(StandardOptions).streaming


def test_what_a_worker_of_dataflow_says_is_what_the_user_reads() -> None:
    service = (
        "Dataflow pipeline failed. State: FAILED, Error:\nTraceback (most recent call last):\n"
        '  File "apache_beam/runners/common.py", line 1512, in process\n'
        "snowcoder_jax.errors.InputError: gs://b/t/tokenizer.json: is not there. Train a "
        "tokenizer or name another folder. [while running 'ParDo(_ShardFn)-ptransform-31']\n"
    )
    error = plain_error(RuntimeError(service))
    assert isinstance(error, InputError)
    assert str(error) == (
        "gs://b/t/tokenizer.json: is not there. Train a tokenizer or name another folder."
    )


def recorder(path: Path) -> Path:
    """A program that writes what it is asked, and what the last folder named holds."""
    log = path.parent / f"{path.name}.log"
    path.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" >"{log}"\nlast=${{!#}}\n'
        f'if [ -d "$last" ]; then ls "$last" >>"{log}"; fi\n'
    )
    path.chmod(0o755)
    return log


def test_prepare_makes_a_wheel_and_asks_cloud_build_for_the_image(tmp_path: Path) -> None:
    asked = recorder(tmp_path / "gcloud")
    env = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "WHEELS": str(tmp_path),
    }
    script = str(small_cloud.ROOT / "launch/dataflow/prepare.sh")
    subprocess.run(["bash", script, "some/image"], check=True, env=env, capture_output=True)
    words = asked.read_text().split("\n")
    assert words[:4] == ["builds", "submit", "--tag", "some/image"]
    assert {"Dockerfile", "requirements.txt", "requirements-dataflow.txt"} <= set(words[5:])
    (wheel,) = tmp_path.glob("snowcoder_jax-*.whl")
    assert options._changed_since(str(wheel)) is None
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"beam_pipelines/{module}.py" for module in MODULES} < set(names)
    assert any(name.startswith("snowcoder_jax/problems/evaluation/") for name in names)


def test_the_launch_script_asks_for_a_stage_or_for_a_part_of_the_run(tmp_path: Path) -> None:
    asked = recorder(tmp_path / "python")
    wheel = tmp_path / "snowcoder_jax-0.1.0-py3-none-any.whl"
    settings = {"PROJECT": "p", "REGION": "r", "BUCKET": "b", "IMAGE": "some/image"}
    env = {**os.environ, **settings, "PYTHON": str(tmp_path / "python"), "WHEELS": str(tmp_path)}
    script = ["bash", str(small_cloud.ROOT / "launch/dataflow/run.sh")]
    refused = subprocess.run([*script, "rules", "r.yaml"], env=env, capture_output=True, text=True)
    assert refused.returncode == EXIT_INPUT
    assert "first run launch/dataflow/prepare.sh" in refused.stderr
    wheel.touch()
    subprocess.run([*script, "rules", "r.yaml", "a=b"], check=True, env=env)
    words = asked.read_text().split()
    assert words[:4] == ["-m", "beam_pipelines.rules", "r.yaml", "a=b"]
    flags, rest = options.split_arguments(words[2:])
    assert rest == ["r.yaml", "a=b"]
    assert {"--runner=DataflowRunner", "--project=p", f"--extra_package={wheel}"} < set(flags)
    subprocess.run([*script, "prepare", "r.yaml"], check=True, env=env)
    words = asked.read_text().split("\n")
    assert words[:4] == ["-m", "snowcoder_jax.cli", "prepare", "r.yaml"]
    assert words[4] == f"hardware.beam_options=[{', '.join(flags)}]"
