"""What must be true before any work starts: everything that can be refused is refused here.

Paths that do not exist, an output that cannot be written, an encoder that is not there, devices
that do not divide a batch: all at once, each with its mend.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable, Collection, Iterator

import yaml

from snowcoder_jax import base_model, storage, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import PLACEHOLDER, Recipe
from snowcoder_jax.recipe_corpus import FolderSource
from snowcoder_jax.recipe_synthesis import ServerTeacher, VllmTeacher
from snowcoder_jax.recipe_synthesis_checks import is_key
from snowcoder_jax.sources import paths
from snowcoder_jax.sources.check import check_opt_out, check_source
from snowcoder_jax.strict import Fault, as_fault, nearest
from snowcoder_jax.text import benchmarks

BUILT_IN_POSITIVES = ("shipped_problems", "good_modules")


def run_folder(recipe: Recipe) -> str:
    return storage.join(recipe.output, "runs", recipe.name)


def require(recipe: Recipe, stages: Collection[str] | None = None, *, asks: bool = False) -> None:
    """Raises InputError with every fault of the recipe on this machine.

    Args:
      stages: check for these corpus stages only; None for a whole run.
      asks: check for what it takes to ask the teacher, too.
    """
    if placeholders := list(_placeholders(recipe)):
        # Nothing is asked of a cloud while it is not said which part of it.
        faults = [*placeholders, *_prompt(recipe), *(teacher_faults(recipe) if asks else ())]
        raise InputError(message(recipe, faults))
    checks: list[Callable[[Recipe], Iterator[Fault]]] = [
        _sources,
        _output,
        _benchmarks,
        base_model.problems,
    ]
    if stages is None:
        checks += [_annotator, _prompt, _devices, _tracking]
    if asks:
        checks.append(teacher_faults)
    faults = [fault for check in checks for fault in check(recipe)]
    faults += _beam(recipe, stages or ("ingest", "contamination"))
    if faults:
        raise InputError(message(recipe, faults))


def message(recipe: Recipe, faults: list[Fault]) -> str:
    """All faults in one text."""
    lines = "\n".join(f"  {fault}" for fault in faults)
    return f"recipe {recipe.name}: {len(faults)} fault(s) on this machine\n{lines}"


def _placeholders(recipe: Recipe) -> Iterator[Fault]:
    """The paths that a shipped recipe leaves to its user."""
    by_field = {
        "output": (recipe.output,),
        "base_model": (recipe.base_model or "",),
        **{f"sources.{s.name}.path": (getattr(s, "path", ""),) for s in recipe.sources},
        "corpus.opt_out": (recipe.corpus.opt_out or "",),
        benchmarks.FIELD: recipe.corpus.contamination.benchmarks,
        "annotator.encoder": (recipe.annotator.encoder,),
        "annotator.positives": recipe.annotator.positives,
    }
    for field, named in by_field.items():
        for path in named:
            if PLACEHOLDER in path:
                yield Fault(field, f"`{path}` is a placeholder", "Put your own path there.")


def _sources(recipe: Recipe) -> Iterator[Fault]:
    for source in recipe.sources:
        try:
            yield from check_source(source)
        except InputError as e:
            yield as_fault(e, f"sources.{source.name}.path")
    try:
        yield from check_opt_out(recipe.corpus.opt_out)
    except InputError as e:
        yield as_fault(e, "corpus.opt_out")


def _output(recipe: Recipe) -> Iterator[Fault]:
    output = os.path.realpath(recipe.output) + os.sep
    for source in recipe.sources:
        try:
            folders = paths.expand(source.path) if isinstance(source, FolderSource) else []
        except InputError:
            continue  # told of the source
        if any(output.startswith(os.path.realpath(f) + os.sep) for f in folders):
            # The run would read what it writes, and find its source changed at every start.
            mend = "Set `output` to a folder outside of it."
            yield Fault("output", f"lies inside the source `{source.name}`", mend)
    probe = storage.join(run_folder(recipe), f".probe-{uuid.uuid4().hex}")
    try:
        storage.write_bytes(probe, b"")
        storage.remove(probe)
    except InputError as e:
        yield as_fault(InputError(str(e).replace(probe, recipe.output)), "output")
    except OSError as e:
        problem = f"`{recipe.output}` cannot be written ({e.strerror or e})"
        yield Fault("output", problem, "Choose a folder that can be.")


def _benchmarks(recipe: Recipe) -> Iterator[Fault]:
    try:
        for problem in benchmarks.problems(recipe.corpus.contamination.benchmarks):
            yield Fault(benchmarks.FIELD, problem, benchmarks.MEND)
    except InputError as e:
        yield as_fault(e, benchmarks.FIELD)


def _beam(recipe: Recipe, stages: Collection[str]) -> list[Fault]:
    if not recipe.hardware.beam_options:
        return []
    from beam_pipelines import options

    return options.faults(recipe, stages)


def _missing(field: str, path: str) -> Iterator[Fault]:
    try:
        if not storage.exists(path):
            yield Fault(field, f"{path} is not there", "Mend the path.")
    except InputError as e:
        yield as_fault(e, field)


def _annotator(recipe: Recipe) -> Iterator[Fault]:
    if not any(s.order == "quality" for s in recipe.selections):
        return
    from snowcoder_jax.model import encoder

    try:
        encoder.check_encoder(encoder.resolve_encoder(recipe.annotator.encoder))
    except InputError as e:
        yield as_fault(e, "annotator.encoder")
    for origin in recipe.annotator.positives:
        if origin in BUILT_IN_POSITIVES:
            continue
        if not origin.endswith(".jsonl"):
            mend = nearest(origin, BUILT_IN_POSITIVES) + " Or name a .jsonl file."
            yield Fault("annotator.positives", f"`{origin}` is unknown", mend)
        else:
            yield from _missing("annotator.positives", origin)


def _prompt(recipe: Recipe) -> Iterator[Fault]:
    if recipe.synthesis is None:
        return
    from snowcoder_jax.synthesis import prompts

    try:
        prompts.prompt_version(recipe.synthesis)
    except InputError as e:
        yield as_fault(e, "synthesis.prompt", "Mend the template.")


def teacher_faults(recipe: Recipe) -> Iterator[Fault]:
    """Of a teacher that is asked in days: what can be seen of it today, on this machine.

    A machine that asks nothing needs neither the folder of the model nor the key of the servers.
    """
    if recipe.synthesis is None:
        return
    from snowcoder_jax.synthesis.teachers import identity

    teacher = recipe.synthesis.teacher
    if isinstance(teacher, VllmTeacher) and identity.is_folder_name(teacher.model):
        folder = os.path.expanduser(teacher.model)
        if not os.path.exists(os.path.join(folder, "config.json")):
            mend = "Name a folder in Hugging Face's format, or a model such as owner/name."
            yield Fault("synthesis.teacher.model", f"{folder} has no config.json", mend)
        elif teacher.mode == "instruct":
            yield from _chat_template(folder)
    variable = teacher.api_key_variable if isinstance(teacher, ServerTeacher) else None
    if variable is not None:
        key, at = os.environ.get(variable, "").strip(), "synthesis.teacher.api_key_variable"
        mend = "Set it to the servers' key, or leave the field out."
        if not key:
            yield Fault(at, f"the environment has no {variable}", mend)
        elif not is_key(key):
            problem = f"{variable} holds line breaks, spaces or characters beyond ASCII"
            yield Fault(at, problem, mend)


def _chat_template(folder: str) -> Iterator[Fault]:
    from snowcoder_jax.synthesis.teachers import identity

    try:
        if identity.has_chat_template(folder):
            return
        problem = f"{folder} has no chat template, so it is no instruct model"
        mend = "Put its chat_template.jinja there, or set mode: completion."
    except InputError as e:
        problem, mend = str(e), "Mend the folder."
    yield Fault("synthesis.teacher.model", problem, mend)


def _devices(recipe: Recipe) -> Iterator[Fault]:
    import jax.numpy as jnp

    from snowcoder_jax.model.attention import kernel_on
    from snowcoder_jax.training import distributed, mesh
    from snowcoder_jax.training.state import state_shapes
    from snowcoder_jax.training.step import check_remat

    model, hardware = recipe.model, recipe.hardware
    try:
        devices = mesh.make_mesh(hardware.mesh)
    except InputError as e:
        yield as_fault(e)
        return
    try:
        state_shapes(model, recipe.tokenizer.vocab_size, recipe.optimizer, devices)
    except InputError as e:
        yield as_fault(e)
    try:
        check_remat(hardware, devices)
    except InputError as e:
        yield as_fault(e)
    for phase in recipe.phases:
        try:
            mesh.check_batch(phase, devices, hardware.microbatches)
            distributed.row_share(devices, phase.batch_size)
        except InputError as e:
            yield as_fault(e)
    dtype, packed = jnp.dtype(hardware.compute_dtype), model.attention == "document"
    for length in sorted({phase.sequence_length for phase in recipe.phases}):
        kernel = hardware.attention_kernel
        try:
            kernel_on(devices, kernel, dtype, length, model.head_dim, packed=packed)
        except InputError as e:
            fault = as_fault(e)
            problem = f"for sequences of {length}: {fault.problem}"
            yield dataclasses.replace(fault, problem=problem)


def _tracking(recipe: Recipe) -> Iterator[Fault]:
    from snowcoder_jax.training import trackers

    yield from trackers.faults(recipe.tracking)


def configure_jax(recipe: Recipe) -> None:
    """Compile once: a persistent cache beside the run's other results."""
    import jax

    cache = storage.join(recipe.output, ".jax_cache")
    if storage.is_local(cache):
        cache = os.path.abspath(cache)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def write_recipe(recipe: Recipe, folders: dict[str, str]) -> None:
    """Keep the recipe, as it runs, beside the run, and which folders it uses, seen from there."""
    text = yaml.safe_dump(strict.to_plain(recipe), sort_keys=False)
    storage.write_bytes(storage.join(run_folder(recipe), "recipe.yaml"), text.encode())
    run = run_folder(recipe)
    seen_from_run = {name: storage.relative(folder, run) for name, folder in folders.items()}
    storage.write_json(storage.join(run, "folders.json"), seen_from_run)


def preempted() -> type[Exception]:
    from snowcoder_jax.training.loop import Preempted

    return Preempted
