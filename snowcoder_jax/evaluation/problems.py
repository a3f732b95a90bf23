"""The evaluation problems that the project ships, and how a completion becomes a program.

Each problem is a YAML file in `snowcoder_jax/problems/evaluation/`: `name`, `prompt` (everything
up to the body of the function to write), `solution` (that body), `tests` (statements that raise
where the function is wrong) and `mutants` (bodies that are nearly right).
"""

from __future__ import annotations

import dataclasses
import io
import os
import tokenize

import yaml

from snowcoder_jax import storage, strict
from snowcoder_jax.errors import InputError

FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "problems", "evaluation")

# Tokens that belong to no statement.
_LAYOUT = frozenset(
    (
        tokenize.NL,
        tokenize.COMMENT,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    )
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem. `prompt` ends without newlines (arXiv 2409.02326, evaluation of HumanEval);
    `solution` and the mutants begin with the one that follows it: prompt + solution is code."""

    name: str
    prompt: str
    solution: str
    tests: str
    mutants: tuple[str, ...]


def load_problems(folder: str = FOLDER) -> list[Problem]:
    """Every problem of a folder, by file name.

    Raises:
      InputError: there is none, or a file is not a problem.
    """
    paths = storage.list_files(folder, ".yaml")
    if not paths:
        raise InputError(f"{folder}: holds no problems. Name a folder with .yaml files.")
    problems = [_load_problem(path) for path in paths]
    names = [problem.name for problem in problems]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{path}: another problem is named `{name}` too. Rename one.")
    return problems


def _load_problem(path: str) -> Problem:
    try:
        data = yaml.safe_load(storage.read_bytes(path))
    except yaml.YAMLError as e:
        raise InputError(f"{path}: is not valid YAML: {e}. Mend that line.") from e
    faults: list[strict.Fault] = []
    problem = strict.load(Problem, data, faults)
    if problem is None:
        raise InputError(f"{path}: " + " ".join(str(fault) for fault in faults))
    for field, value in (("prompt", problem.prompt), ("solution", problem.solution)):
        if not value.strip():
            raise InputError(f"{path}: `{field}` is empty. Write it.")
    return dataclasses.replace(
        problem,
        prompt=problem.prompt.rstrip("\n"),
        solution=_body(problem.solution),
        mutants=tuple(_body(mutant) for mutant in problem.mutants),
    )


def _body(text: str) -> str:
    return "\n" + text.lstrip("\n").rstrip() + "\n"


def complete(problem: Problem, completion: str) -> str:
    """The program to run: prompt, what continues it (cut after the function), tests."""
    return f"{problem.prompt}{truncate_completion(completion)}\n\n{problem.tests}"


def truncate_completion(text: str) -> str:
    """A continuation of a prompt, cut where the first new top-level statement begins.

    The rest of the prompt's last line always stays. Text at the start of a line inside a string
    or brackets is no statement. Where the text is no Python that can be told into tokens, the
    first line is the end that begins at column 0 and is neither blank nor a comment.
    """
    first, newline, rest = text.partition("\n")
    if not newline:
        return text
    lines = io.StringIO(rest).readlines()
    return first + newline + "".join(lines[: _num_body_lines(lines)])


def _num_body_lines(lines: list[str]) -> int:
    # A header of our own makes the indented lines a block.
    reader = io.StringIO("if 1:\n" + "".join(lines)).readline
    end = 0
    at_start = False
    try:
        for token in tokenize.generate_tokens(reader):
            if token.type == tokenize.NEWLINE:
                # Rows count from 1, and the header is one: row r ends line r - 1.
                end, at_start = token.end[0] - 1 if token.string else token.start[0] - 1, True
            elif token.type not in _LAYOUT and at_start:
                if token.start[1] == 0:
                    return end
                at_start = False
        return len(lines)
    except (tokenize.TokenError, SyntaxError):
        return _num_indented_lines(lines, end)


def _num_indented_lines(lines: list[str], start: int) -> int:
    for i in range(start, len(lines)):
        if lines[i].strip() and not lines[i].startswith((" ", "\t", "#")):
            return i
    return len(lines)
