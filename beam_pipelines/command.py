"""One stage as a command: `python -m beam_pipelines.rules RECIPE --runner=DataflowRunner ...`.

It does the stage's steps of the recipe's graph and no others, in the folders and with the keys of
the `snowcoder` command, which finds them done later. What a step reads has to be done before it; of
several steps those whose turn has not come (of synthetic documents, say) are left for later.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence

from snowcoder_jax import cli, preflight, run
from snowcoder_jax.errors import EXIT_DONE, InputError
from snowcoder_jax.recipe import Recipe
from snowcoder_jax.run import Step
from snowcoder_jax.steps import build
from snowcoder_jax.strict import nearest

# The command that does a step, by the first word of its name: a module of this package, ...
_MODULES = {
    **{name: name for name in ("ingest", "rules", "duplicates", "contamination", "secrets")},
    **dict.fromkeys(("policy", "candidates", "negatives", "select"), "select"),
    **{name: name for name in ("tokens", "quality", "pack")},
}
# Of the steps `synthesize ...`, the one between the two is asked for by the `snowcoder` command.
_OF_SYNTHESIS = {"synthesize seeds": "seeds", "synthesize": "accept"}
# ... or a part of the `snowcoder` command, which does it on the launching machine.
_COMMANDS = {"tokenizer": "prepare", "annotator": "annotate", "train": "train"}


def main(module: str) -> None:
    """What a stage's module does when it is run; ends the process.

    Python then calls that module `__main__`, which no worker could import: only the module of
    the right name, which the graph's steps import, does any work.
    """
    sys.exit(cli.exit_code(lambda: run_stage(module, sys.argv[1:]), f"beam_pipelines.{module}"))


def run_stage(module: str, arguments: Sequence[str]) -> int:
    """Do a stage's steps that are not done and can be.

    Raises:
      InputError: the arguments or the recipe are at fault, or something has to be done before any.
    """
    args, recipe = _parse(module, arguments)
    preflight.require(recipe, (module,))
    graph = build(recipe)
    own = [s.name for s in graph.steps if _module_of(s) == module]
    if not own:
        raise InputError(f"recipe {recipe.name}: has no step for beam_pipelines.{module}.")
    if args.step is not None and args.step not in own:
        raise InputError(f"--step: there is no `{args.step}`. {nearest(args.step, own)}")
    preflight.write_recipe(recipe, graph.named)
    chosen = [s for s in graph.steps if s.name in own and args.step in (None, s.name)]
    waiting: dict[str, list[Step]] = {}
    for step in chosen:
        if run.finished(step) is None:
            before = graph.needed_by([step.name])[:-1]
            if missing := [s for s in before if run.finished(s) is None]:
                waiting[step.name] = missing
                continue
        run.execute([step], run.print_line)
    if len(waiting) == len(chosen):
        raise InputError(_what_to_do_first(*next(iter(waiting.items())), args.recipe_words))
    for name, missing in waiting.items():
        run.print_line(f"{name}: not yet, it reads `{missing[0].name}`")
    return EXIT_DONE


def _parse(module: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, Recipe]:
    parser = argparse.ArgumentParser(
        prog=f"python -m beam_pipelines.{module}",
        description=f"The steps of a recipe that beam_pipelines/{module}.py does, and no others.",
        epilog="All other options are Apache Beam's: without any the stage runs in this process; "
        "--runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp runs it on "
        "Dataflow (docs/dataflow.md).",
        allow_abbrev=False,
    )
    cli.recipe_arguments(parser)
    parser.add_argument("--step", metavar="NAME", help="only this step, such as `select best`")
    if {"-h", "--help"} & set(arguments):
        parser.parse_args(["--help"])
    from beam_pipelines.options import split_arguments

    flags, rest = split_arguments(arguments)
    args, unknown = parser.parse_known_args(rest)
    for argument in unknown:
        # argparse takes no FIELD=VALUE after an option, where people write them too.
        if argument[0] != "-" and "=" in argument:
            args.overrides.append(argument)
        elif argument[0] == "-":
            flags.append(argument)  # refused with Beam's options, by the name that is nearest
        else:
            parser.error(f"unrecognized argument: {argument}")
    args.recipe_words = [args.recipe, *args.overrides]
    args.recipe_words += [f"--source={folder}" for folder in args.source]
    recipe = cli.recipe_of(args)
    options = (*recipe.hardware.beam_options, *flags)
    hardware = dataclasses.replace(recipe.hardware, beam_options=options)
    return args, dataclasses.replace(recipe, hardware=hardware)


def _module_of(step: Step) -> str | None:
    if step.name in _OF_SYNTHESIS:
        return _OF_SYNTHESIS[step.name]
    return _MODULES.get(step.name.removeprefix("synthetic ").split(" ")[0])


def _what_to_do_first(name: str, missing: Sequence[Step], recipe_words: Sequence[str]) -> str:
    first = missing[0]
    if module := _module_of(first):
        command = ["python", "-m", f"beam_pipelines.{module}", *recipe_words, "--step", first.name]
    else:
        verb = _COMMANDS.get(first.name.split(" ")[0], "synthesize")
        command = ["snowcoder", verb, *recipe_words]
    return (
        f"{name} reads what is not done: {', '.join(s.name for s in missing)}. "
        f"Do `{first.name}` first, with Beam's options where you want them:\n"
        f"  {shlex.join(command)}"
    )
