"""Checks of the problems that the project ships (snowcoder_jax/problems)."""

import ast
import collections
import json
import pathlib
import subprocess
import sys

import pytest
import yaml

PROBLEMS = pathlib.Path(__file__).parents[1] / "snowcoder_jax" / "problems"
POSITIVES = sorted(path for path in (PROBLEMS / "positives").iterdir() if path.is_file())
EVALUATION = sorted((PROBLEMS / "evaluation").glob("*.yaml"))

# Languages besides Python; each has exactly one positive.
OTHER_EXTENSIONS = {
    *(".java", ".cpp", ".c", ".js", ".php", ".cs", ".go", ".ts", ".sql"),
    *(".rb", ".rs", ".ipynb", ".scala", ".kt", ".sh", ".dart", ".swift"),
}

TIMEOUT_SECONDS = 10

# Runs every program in a namespace of its own and reports, in the same order,
# null for success or the name of the exception. One process for all programs,
# since starting Python costs far more than running one of them.
RUNNER = """
import contextlib, doctest, io, json, sys

def run(program, examples_of):
    space = {"__name__": "__main__"}
    exec(compile(program, "program", "exec"), space)
    if examples_of:
        test = doctest.DocTestParser().get_doctest(
            space[examples_of].__doc__, space, examples_of, None, 0
        )
        assert test.examples, "no examples"
        doctest.DebugRunner().run(test)

outcomes = []
for program, examples_of in json.load(sys.stdin):
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run(program, examples_of)
        outcomes.append(None)
    except Exception as error:
        outcomes.append(type(error).__name__)
print(json.dumps(outcomes))
"""


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def run_programs(programs):
    """Run (program, function whose docstring examples to check or None) pairs."""
    result = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_SECONDS,
    )
    return json.loads(result.stdout)


def notebook_cells(path, kind):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def python_source(path):
    """Return the Python code of a positive, or None for other languages."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return "\n\n".join(notebook_cells(path, "code"))
    return None


PYTHON_POSITIVES = [path for path in POSITIVES if python_source(path) is not None]


def test_there_are_30_evaluation_problems():
    assert len(EVALUATION) == 30


@pytest.mark.parametrize("path", EVALUATION, ids=lambda path: path.stem)
def test_evaluation_problem_is_well_formed(path):
    problem = load(path)
    assert set(problem) == {"name", "prompt", "solution", "tests", "mutants"}
    texts = [problem[key] for key in ("name", "prompt", "solution", "tests")]
    bodies = [problem["solution"], *problem["mutants"]]
    assert all(isinstance(text, str) for text in texts + bodies)
    assert problem["name"] == path.stem
    assert len(problem["mutants"]) == 3
    assert len(set(bodies)) == 4

    # A model goes on right after the docstring, with an indented line.
    assert problem["prompt"].endswith('    """\n')
    for body in bodies:
        assert body.startswith("    ") and body[4] != " "
        assert body.endswith("\n")
        compile(problem["prompt"] + body, path.name, "exec")

    # The function is the last thing in the program, so that a body cannot
    # smuggle in code behind it.
    program = ast.parse(problem["prompt"] + problem["solution"])
    function = program.body[-1]
    assert isinstance(function, ast.FunctionDef)
    assert function.name == problem["name"]
    assert all(argument.annotation for argument in function.args.args)
    assert function.returns is not None

    tests = ast.parse(problem["tests"])
    asserts = [node for node in ast.walk(tests) if isinstance(node, ast.Assert)]
    assert 6 <= len(asserts) <= 12


def test_solutions_pass_tests_and_examples():
    problems = [load(path) for path in EVALUATION]
    outcomes = run_programs(
        [(p["prompt"] + p["solution"] + p["tests"], p["name"]) for p in problems]
    )
    names = [problem["name"] for problem in problems]
    failed = {name: e for name, e in zip(names, outcomes, strict=True) if e}
    assert not failed


def test_mutants_fail_tests():
    names, programs = [], []
    for path in EVALUATION:
        problem = load(path)
        for number, mutant in enumerate(problem["mutants"], start=1):
            names.append(f"{path.stem} mutant {number}")
            programs.append((problem["prompt"] + mutant + problem["tests"], None))
    outcomes = dict(zip(names, run_programs(programs), strict=True))
    survivors = [name for name, error in outcomes.items() if error is None]
    assert not survivors
    # A misspelt name would fail the tests too, without being a plausible mistake.
    broken = [
        name
        for name, error in outcomes.items()
        if error in ("NameError", "UnboundLocalError", "SyntaxError")
    ]
    assert not broken


def test_names_are_unique_and_sets_disjoint():
    # LoanShelf and loan_shelf would be the same task in two languages.
    names = [path.stem.replace("_", "").lower() for path in [*POSITIVES, *EVALUATION]]
    repeated = [name for name, n in collections.Counter(names).items() if n > 1]
    assert not repeated


def test_positives_cover_all_languages():
    counts = collections.Counter(path.suffix for path in POSITIVES)
    assert counts == {".py": 15} | dict.fromkeys(OTHER_EXTENSIONS, 1)


@pytest.mark.parametrize("path", POSITIVES, ids=lambda path: path.name)
def test_positive_has_the_right_size(path):
    if path.suffix == ".ipynb":
        cells = notebook_cells(path, "markdown") + notebook_cells(path, "code")
        text = "\n".join(cells)
    else:
        text = path.read_text(encoding="utf-8")
        assert text.endswith("\n")
    assert 25 <= len(text.splitlines()) <= 70


@pytest.mark.parametrize("path", PYTHON_POSITIVES, ids=lambda path: path.name)
def test_python_positive_compiles(path):
    compile(python_source(path), path.name, "exec")


def test_python_positives_pass_their_self_checks():
    outcomes = run_programs([(python_source(path), None) for path in PYTHON_POSITIVES])
    names = [path.name for path in PYTHON_POSITIVES]
    failed = {name: e for name, e in zip(names, outcomes, strict=True) if e}
    assert not failed
