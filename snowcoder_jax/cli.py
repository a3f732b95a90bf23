"""The `snowcoder` command: parse, call, print."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from snowcoder_jax.errors import (
    EXIT_DONE,
    EXIT_INPUT,
    EXIT_MACHINE,
    EXIT_SAVED,
    InputError,
    is_interrupt,
    plain_error,
)
from snowcoder_jax.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from snowcoder_jax.run import Step
    from snowcoder_jax.steps.builder import Builder

# A command that does part of a run, and the first words of the steps it ends with.
GROUPS = {
    "prepare": ("tokens",),
    "annotate": ("quality",),
    "select": ("select",),
    "train": ("train",),
    "synthesize": ("synthesize", "synthetic"),
    "evaluate": ("evaluate", "compare", "baseline"),
    "report": ("report",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code of DESIGN: 0 done, 75 saved, 2 input, 1 machine."""
    args, rest = _parser().parse_known_args(argv)
    # argparse takes no FIELD=VALUE after an option, where people write them too.
    if rest and not (hasattr(args, "overrides") and all("=" in r and r[0] != "-" for r in rest)):
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    elif rest:
        args.overrides += rest
    handler: Callable[[argparse.Namespace], int] = args.handler
    return exit_code(lambda: handler(args))


def exit_code(work: Callable[[], int], program: str = "snowcoder") -> int:
    """Do the work of a command; what stops it becomes one message and an exit code."""
    # While a phase trains, the loop handles SIGTERM itself: it saves first.
    from snowcoder_jax.training import distributed

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = work()
        distributed.leave(code)
        return code
    except (Exception, KeyboardInterrupt) as e:
        if is_interrupt(e):
            code, message = EXIT_SAVED, "interrupted; start the same command again to go on"
        elif (error := plain_error(e) or distributed.lost_others(e)) is not None:
            code = EXIT_INPUT if isinstance(error, InputError) else EXIT_MACHINE
            message = str(error)
        else:
            if distributed.process_count() > 1:
                traceback.print_exc()
                distributed.leave(EXIT_MACHINE, repr(e))
            raise
    print(f"{program}: {message}", file=sys.stderr)
    distributed.leave(code, message)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snowcoder", description="The three-phase recipe of Arctic-SnowCoder, in JAX."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="do everything a recipe asks for, skipping what is done")
    recipe_arguments(run)
    _process_arguments(run)
    run.set_defaults(handler=_run)
    for name, words in GROUPS.items():
        part = commands.add_parser(name, help=f"the steps of a run up to `{words[-1]}`")
        recipe_arguments(part)
        _process_arguments(part)
        part.set_defaults(handler=_run, group=words)
        if name == "synthesize":
            part.add_argument("--limit", type=int, metavar="N", help="only the first N seeds drawn")
            part.add_argument(
                "--dry-run", action="store_true", help="show prompts and the estimate; ask nothing"
            )
            part.set_defaults(handler=_synthesize)

    check = commands.add_parser("check", help="report every fault of a recipe before any work")
    recipe_arguments(check)
    check.set_defaults(handler=_check)

    plan = commands.add_parser("plan", help="does a phase fit a topology, how fast, at what cost")
    recipe_arguments(plan)
    plan.add_argument("--topology", required=True, help="such as v5p:4x4x4, v5e:16x16, H100:8")
    plan.add_argument("--phase", help="the phase to plan; the first one by default")
    plan.add_argument("--price-per-chip-hour", type=float, help="to give the cost, in its unit")
    plan.add_argument("--json", action="store_true", help="one JSON object on the last line")
    plan.set_defaults(handler=_plan)

    why = commands.add_parser("why", help="every stage's verdict on one document")
    why.add_argument("run", help="the run's folder, such as runs/local")
    why.add_argument("document", help="a document id, or a path or its end")
    why.set_defaults(handler=_why)

    inspect = commands.add_parser("inspect", help="a page of a run's corpus, with samples")
    inspect.add_argument("run", help="the run's folder, such as runs/local")
    inspect.add_argument("--samples", type=int, default=3, help="files shown of a kind")
    inspect.set_defaults(handler=_inspect)

    export = commands.add_parser("export", help="a checkpoint as a Hugging Face Llama folder")
    export.add_argument("checkpoint", help="such as runs/local/checkpoints/enhanced")
    export.add_argument("folder", help="the folder to make")
    export.set_defaults(handler=_export)

    generate = commands.add_parser("generate", help="continue a text with a checkpoint")
    generate.add_argument("checkpoint", help="such as runs/local/checkpoints/enhanced")
    generate.add_argument("prompt", help='such as "def "')
    generate.add_argument("--max-new-tokens", type=int, default=64)
    generate.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    generate.add_argument("--top-p", type=float, default=1.0)
    generate.add_argument("--seed", type=int, default=0)
    generate.set_defaults(handler=_generate)
    return parser


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a recipe and change it."""
    parser.add_argument("recipe", help="a YAML file, such as configs/local.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="FIELD=VALUE", help="phases.continued.schedule.peak=4e-4"
    )
    parser.add_argument(
        "--source", action="append", default=[], metavar="FOLDER", help="add a folder of code"
    )


def _process_arguments(parser: argparse.ArgumentParser) -> None:
    """How several processes find each other; TPU VMs and SLURM need none of it."""
    group = parser.add_argument_group("several processes (TPU VMs and SLURM find each other)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, for all the same")
    group.add_argument("--num-processes", type=int, metavar="N")
    group.add_argument("--process-id", type=int, metavar="I", help="from 0 to N - 1")


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that `recipe_arguments` name."""
    # launch/local.sh goes to the repository's root; a folder is meant from where it was typed.
    caller = os.environ.get("SNOWCODER_CALLER", "")
    folders = tuple(os.path.join(caller, os.path.expanduser(folder)) for folder in args.source)
    return load_recipe(args.recipe, tuple(args.overrides), folders)


def _run(args: argparse.Namespace) -> int:
    words = getattr(args, "group", None)
    return _run_steps(args, lambda graph: graph.steps if words is None else graph.up_to(words))


def _synthesize(args: argparse.Namespace) -> int:
    from snowcoder_jax.steps import asking

    if args.limit is not None and args.limit < 0:
        raise InputError(f"--limit {args.limit}: is below 0. Give a number of seeds.")
    if args.limit is None and not args.dry_run:
        return _run(args)
    return _run_steps(
        args,
        lambda graph: asking.steps_before(graph, asks=not args.dry_run),
        lambda graph: asking.try_out(graph, args.limit, args.dry_run),
    )


def _run_steps(
    args: argparse.Namespace,
    choose: Callable[[Builder], list[Step]],
    after: Callable[[Builder], None] = lambda graph: None,
) -> int:
    """Do the chosen steps of the recipe's graph, then, in the first process, `after`."""
    from snowcoder_jax import preflight, run
    from snowcoder_jax.code_version import code_version
    from snowcoder_jax.steps import asking, build
    from snowcoder_jax.training import distributed
    from snowcoder_jax.training.launch import find_launch

    distributed.initialize(
        find_launch(args.coordinator, args.num_processes, args.process_id, os.environ)
    )
    recipe = recipe_of(args)
    folder = preflight.run_folder(recipe)
    distributed.require_same_recipe(recipe, code_version())
    preflight.require(recipe)
    distributed.require_shared(folder)
    preflight.configure_jax(recipe)
    with contextlib.ExitStack() as held:
        distributed.agreed("lock", lambda: held.enter_context(run.folder_lock(folder)))
        graph = build(recipe)
        if distributed.is_first():
            preflight.write_recipe(recipe, graph.named)
        steps = choose(graph)
        asking.require_teacher(graph, steps)
        try:
            run.execute(steps, run.print_line)
            if distributed.is_first():
                after(graph)
        except preflight.preempted() as e:
            print(f"snowcoder: {e}", file=sys.stderr)
            return EXIT_SAVED
    if steps[-1].name == "report" and distributed.is_first():
        print(f"report: {folder}/report.html")
    return EXIT_DONE


def _check(args: argparse.Namespace) -> int:
    from snowcoder_jax import preflight
    from snowcoder_jax.steps import asking, build

    recipe = recipe_of(args)
    try:
        preflight.require(recipe)
    except InputError:
        preflight.require(recipe, asks=True)  # with the faults of the teacher
        raise
    if any(preflight.teacher_faults(recipe)):  # none where all is answered
        graph = build(recipe)
        asking.require_teacher(graph, graph.steps)
    print(f"{args.recipe}: no fault found")
    return EXIT_DONE


def _plan(args: argparse.Namespace) -> int:
    from snowcoder_jax import planning

    def say(line: str) -> None:
        print(f"snowcoder: {line}", file=sys.stderr, flush=True)

    print(
        planning.run(
            recipe_of(args), args.phase, args.topology, args.price_per_chip_hour, args.json, say
        )
    )
    return EXIT_DONE


def _why(args: argparse.Namespace) -> int:
    from snowcoder_jax import why

    text = why.explain(args.run, args.document)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # `| head` has read enough; Python would complain once more at its own exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_DONE


def _inspect(args: argparse.Namespace) -> int:
    from snowcoder_jax.reports import inspect

    print(f"corpus: {inspect.write_page(args.run, args.samples)}")
    return EXIT_DONE


def _export(args: argparse.Namespace) -> int:
    from snowcoder_jax import checkpoint_model

    model = checkpoint_model.load(args.checkpoint)
    checkpoint_model.export(model, args.folder)
    print(f"exported to {args.folder}")
    return EXIT_DONE


def _generate(args: argparse.Namespace) -> int:
    from snowcoder_jax import checkpoint_model

    model = checkpoint_model.load(args.checkpoint)
    text = checkpoint_model.generate(
        model,
        args.prompt,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
    )
    print(args.prompt + text)
    return EXIT_DONE


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
