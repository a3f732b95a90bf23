"""Problems as programs: reading the files, joining, cutting a completion at its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.errors import InputError
from snowcoder_jax.evaluation.problems import complete, load_problems, truncate_completion

GOOD = """
name: double
prompt: |
  def double(n):
      \"\"\"Twice n.\"\"\"
solution: |2
      return 2 * n
tests: |
  assert double(2) == 4
mutants:
  - |2
        return n
"""


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder)


def test_a_problem_becomes_a_program(tmp_path):
    (problem,) = load_problems(write(tmp_path, a=GOOD))
    assert problem.prompt == 'def double(n):\n    """Twice n."""'
    assert problem.solution == "\n    return 2 * n\n"
    assert problem.mutants == ("\n    return n\n",)
    program = complete(problem, problem.solution)
    assert program == (
        'def double(n):\n    """Twice n."""\n    return 2 * n\n\n\nassert double(2) == 4\n'
    )
    exec(compile(program, "program", "exec"), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("tests:", "test:"), "Did you mean `tests`"),
        (GOOD.replace("name: double", "name: 3"), "name: a text is wanted"),
        (GOOD.replace("      return 2 * n", ""), "`solution` is empty"),
        ("name: [", "is not valid YAML"),
        ("- a", "a mapping is wanted"),
        ("", "a mapping is wanted"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(tmp_path, text, words):
    folder = write(tmp_path, a=text)
    with pytest.raises(InputError, match=r"a\.yaml") as fault:
        load_problems(folder)
    assert words in str(fault.value)


def test_no_problems_and_two_of_a_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no problems"):
        load_problems(str(tmp_path))
    with pytest.raises(InputError, match="another problem is named `double`"):
        load_problems(write(tmp_path, a=GOOD, b=GOOD))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\n    return 1\n", "\n    return 1\n"),
        ("\n    return 1", "\n    return 1"),
        ("", ""),
        ("  # a comment", "  # a comment"),
        ("\n    return 1\ndef g():\n    pass\n", "\n    return 1\n"),
        ("\n    return 1\n\n\n@x\ndef g():\n    pass\n", "\n    return 1\n"),
        ("\n    return 1\n# next\nclass A: pass", "\n    return 1\n"),
        ("\n    return 1\nprint(f(1))\n", "\n    return 1\n"),
        ("\n    if x:\n# a stray comment\n        return 1\n", None),
        ("\n    x = '''\ntext at column 0\n'''\n    return x\n", None),
        ("\n    return (\n1,\n)\n", None),
        ("\n    return 1 + \\\n2\nprint()\n", "\n    return 1 + \\\n2\n"),
        ("\n    def inner():\n        return 1\n\n    return inner()\n", None),
        ("\n\treturn 1\nx = 1\n", "\n\treturn 1\n"),
        ("\n    return 1\r\nx = 1\r\n", "\n    return 1\r\n"),
        # Broken code: the rule by lines.
        ("\n    return 1\n   x\nprint()\n", "\n    return 1\n   x\n"),
        ("\n    x = '''\nnever closed\n", "\n    x = '''\n"),
        # What comes after the cut may be broken.
        ("\n    return 1\n\ndef g():\n    return '''", "\n    return 1\n"),
        ("\n    return 1\n\ndef g():\n    return (", "\n    return 1\n"),
    ],
)
def test_a_completion_is_cut_at_the_next_top_level_statement(text, kept):
    assert truncate_completion(text) == (text if kept is None else kept)


@given(st.text() | st.text("a (\n\t'\"#\\:=)0").map("\n    x".__add__))
def test_any_text_is_cut_to_a_start_of_itself_and_cutting_again_changes_nothing(text):
    kept = truncate_completion(text)
    assert text.startswith(kept)
    assert truncate_completion(kept) == kept
