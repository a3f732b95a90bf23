"""Which Beam runner a stage uses, and with what; every option is checked before any work."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import zipfile
from argparse import ArgumentParser
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from snowcoder_jax import storage
from snowcoder_jax.recipe import Recipe
from snowcoder_jax.strict import Fault, nearest

# The in-memory runner, named because Beam's default tries Prism first, which downloads a program.
LOCAL_RUNNER = "FnApiRunner"
DATAFLOW_RUNNER = "DataflowRunner"
_DOWNLOADING = ("DirectRunner", "SwitchingDirectRunner", "PrismRunner")
_FIELD = "hardware.beam_options"
# What a stage cannot be run with. A stage checks what its job has written, so it waits for it.
_REFUSED = {
    "dry_run": "a stage must wait for its job",
    "template_location": "a stage must wait for its job",
    "no_wait_until_finish": "a stage must wait for its job",
    "streaming": "a stage ends",
    "save_main_session": "workers import the code, and no session is pickled",
}


def local_options(num_workers: int = 1) -> PipelineOptions:
    """Options of a local run: the in-memory FnApiRunner, in this process or in `num_workers`."""
    return stage_options((), num_workers)


def stage_options(flags: Sequence[str], num_workers: int = 1) -> PipelineOptions:
    """The options of one stage's pipeline.

    Args:
      flags: Beam's own (`--runner=DataflowRunner`, ...), free of `faults`.
      num_workers: processes of a local run, where `flags` names no runner.
    """
    runner = runner_name(flags)
    defaults = [f"--runner={runner}"]
    if runner == LOCAL_RUNNER:
        # What goes wrong in a stage is raised here as well; Beam's own account of it, with several
        # tracebacks, would bury the message that a user should read.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        defaults.append(f"--direct_num_workers={num_workers}")  # `workers.py` keeps them
    elif runner == DATAFLOW_RUNNER:
        # What the service says of the job; of its client, which would print the whole request,
        # only where to watch it.
        logging.getLogger("apache_beam.runners.dataflow").setLevel(logging.INFO)
        client = logging.getLogger("apache_beam.runners.dataflow.internal.apiclient")
        client.addFilter(_is_worth_reading)
    # Dataflow would pickle the launching module's globals, which workers import instead.
    return PipelineOptions([*defaults, *flags, "--no_save_main_session"])


def _is_worth_reading(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or "monitoring console" in str(record.msg)


def runner_name(flags: Sequence[str]) -> str:
    """The runner that `flags` ask for, as Beam spells it where Beam knows it."""
    known, _ = _parser().parse_known_args(list(flags))
    asked = str(known.runner or LOCAL_RUNNER).rsplit(".", 1)[-1]
    spellings = {_word(name): name for name in StandardOptions.KNOWN_RUNNER_NAMES}
    return spellings.get(_word(asked), asked)


def _word(runner: str) -> str:
    return runner.lower().removesuffix("runner")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part a command line into Beam's options, with their values, and all the rest, in order."""
    with _quiet():
        _, rest = _parser().parse_known_args(list(arguments))
    left = iter([*rest, None])
    following = next(left)
    flags = []
    for argument in arguments:
        if argument == following:
            following = next(left)
        else:
            flags.append(argument)
    return flags, rest


def faults(recipe: Recipe, stages: Collection[str]) -> list[Fault]:
    """What stands against running `stages` with the recipe's Beam options: faults of the options,
    or else the paths that workers of Dataflow would look for and not find."""
    flags = recipe.hardware.beam_options
    return list(_option_faults(flags)) or list(_path_faults(recipe, stages))


def _option_faults(flags: Sequence[str]) -> Iterator[Fault]:
    parser = _parser()
    try:
        with _quiet() as output:
            known, unknown = parser.parse_known_args(list(flags))
    except SystemExit:
        # argparse explains itself on stderr only, in the last line of a long usage.
        problem = output.getvalue().rstrip().rsplit("error: ", 1)[-1]
        yield Fault(_FIELD, problem, "Mend the option's value.")
        return
    names = [name for action in parser._actions for name in action.option_strings]
    for argument in unknown:
        name = argument.split("=", 1)[0]
        yield Fault(_FIELD, f"`{argument}` is no option of Apache Beam", nearest(name, names))
    for name, reason in _REFUSED.items():
        if getattr(known, name, None):
            yield Fault(_FIELD, f"`--{name}` cannot be used: {reason}", "Leave it out.")
    runner = runner_name(flags)
    if runner in _DOWNLOADING:
        problem = f"`--runner={runner}` downloads a program at run time"
        yield Fault(_FIELD, problem, f"Leave it out: {LOCAL_RUNNER} does the same.")
    elif runner not in StandardOptions.KNOWN_RUNNER_NAMES:
        mend = nearest(runner, StandardOptions.KNOWN_RUNNER_NAMES)
        yield Fault(_FIELD, f"`{runner}` is no runner of Apache Beam", mend)
    elif runner == DATAFLOW_RUNNER:
        yield from _dataflow_faults(flags)


def _dataflow_faults(flags: Sequence[str]) -> Iterator[Fault]:
    try:
        import google.cloud.dataflow  # noqa: F401
    except ImportError:
        mend = "Install the extra: pip install 'snowcoder-jax[gcp]'."
        yield Fault(_FIELD, "Dataflow's client is not installed", mend)
    known = PipelineOptions(list(flags)).view_as(GoogleCloudOptions)
    required = {
        "project": "--project=PROJECT_ID",
        "region": "--region=us-central1",
        "temp_location": "--temp_location=gs://BUCKET/tmp",
    }
    for name, example in required.items():
        if not getattr(known, name):
            yield Fault(_FIELD, f"Dataflow needs `--{name}`", f"Add {example}.")
    for name in ("temp_location", "staging_location"):
        location = getattr(known, name)
        if location and not location.startswith("gs://"):
            yield Fault(_FIELD, f"`--{name}={location}` is no gs:// path", "Name a bucket.")
    yield from _package_faults(flags)


def _package_faults(flags: Sequence[str]) -> Iterator[Fault]:
    """Workers have to have this project, in the very state whose fingerprint is in the keys."""
    options = PipelineOptions(list(flags))
    setup = options.view_as(SetupOptions)
    wheels = [p for p in setup.extra_packages or () if "snowcoder_jax-" in os.path.basename(p)]
    mend = "Make the wheel with launch/dataflow/prepare.sh, and add --extra_package=WHEEL."
    if not (wheels or setup.setup_file or options.view_as(WorkerOptions).sdk_container_image):
        yield Fault(_FIELD, "workers would not have this project", mend)
    for wheel in wheels:
        if not os.path.exists(wheel):
            yield Fault(_FIELD, f"{wheel} is not there", mend)
        elif changed := _changed_since(wheel):
            problem = f"{wheel} is of another state of the code ({changed} differs)"
            yield Fault(_FIELD, problem, "Make it again with launch/dataflow/prepare.sh.")


def _changed_since(wheel: str) -> str | None:
    """The first file of a wheel that is not as it is here."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = os.path.join(root, name)
            if ".dist-info/" in name:
                continue
            if not os.path.exists(path) or Path(path).read_bytes() != archive.read(name):
                return name
    return None


def _path_faults(recipe: Recipe, stages: Collection[str]) -> Iterator[Fault]:
    if runner_name(recipe.hardware.beam_options) != DATAFLOW_RUNNER:
        return
    mend = "Copy it to gs:// and name it there."
    if storage.is_local(recipe.output):
        yield Fault("output", f"{recipe.output} is on this machine, and workers are not", mend)
    if "ingest" in stages:
        for source in recipe.sources:
            field = f"sources.{source.name}"
            if source.kind == "installed":
                problem = "workers have other packages installed than this machine"
                yield Fault(field, problem, "Ingest it without Dataflow, into a gs:// output.")
            elif storage.is_local(source.path):
                problem = f"{source.path} is on this machine, and workers are not"
                yield Fault(f"{field}.path", problem, mend)
    if "contamination" in stages:
        for path in recipe.corpus.contamination.benchmarks:
            if storage.is_local(path):
                problem = f"{path} is on this machine, and workers are not"
                yield Fault("corpus.contamination.benchmarks", problem, mend)


def _parser() -> ArgumentParser:
    """The parser of every option that Beam knows."""
    parsers: list[ArgumentParser] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    return parsers[0]


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    with contextlib.redirect_stderr(io.StringIO()) as output:
        yield output
