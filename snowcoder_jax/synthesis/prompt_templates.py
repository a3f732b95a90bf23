"""Prompt templates: YAML files with a text, its placeholders, and parts for each language.

`templates/NAME.yaml` are shipped; a recipe may name a file of its own. A placeholder stands in
double braces and is filled in one pass, so that nothing a seed holds is taken for one.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import os
import re
from collections.abc import Mapping

import yaml

from snowcoder_jax import storage, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.languages import BY_NAME
from snowcoder_jax.recipe import fingerprint
from snowcoder_jax.strict import Fault, nearest

SHIPPED = ("oss_instruct", "rewrite")

# What a template may ask for: `seed` is a fenced code block, `tag` what such a block of the
# language is opened with, `extent` says whether the seed is a whole file.
PLACEHOLDERS = ("language", "tag", "extent", "seed", "focus", "conventions")
_PLACEHOLDER = re.compile(r"\{\{\s*(\w*)\s*\}\}")
_OPENED = re.compile(r"\{\{[^{}\n]*\}{0,2}")


@dataclasses.dataclass(frozen=True)
class Template:
    """A prompt to an instruct model.

    Attributes:
      prompt: the user's message, with placeholders; `{{seed}}` is one of them.
      focus: one of these, drawn for each seed, stands for `{{focus}}`.
      languages: what stands for `{{conventions}}`; the shipped text for languages not named.
    """

    prompt: str
    focus: tuple[str, ...] = ()
    languages: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def hash(self) -> str:
        """8 hex digits of all that the template puts into prompts."""
        return fingerprint(self, _shipped_conventions())[:8]

    def fill(self, values: Mapping[str, str]) -> str:
        """The prompt with `values` of all `PLACEHOLDERS`, which are not looked into."""
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.prompt)

    def conventions(self, language: str) -> str:
        """What a file of `language` has to keep to."""
        return self.languages.get(language, _shipped_conventions()[language]).strip()


def template_text(name_or_path: str) -> str:
    """The text of a template file, shipped or the user's own (local or gs://).

    Raises:
      InputError: it is not there or is no text.
    """
    if name_or_path in SHIPPED:
        return _shipped(f"{name_or_path}.yaml")
    if not storage.exists(name_or_path):
        raise InputError(
            f"prompt template `{name_or_path}`: there is no such file. Name an existing one in "
            f"synthesis.prompt, or one of: {', '.join(SHIPPED)}."
        )
    try:
        return storage.read_bytes(name_or_path).decode()
    except (UnicodeDecodeError, IsADirectoryError) as e:
        raise InputError(
            f"prompt template `{name_or_path}`: is no text file in UTF-8 ({e}). Save it as one."
        ) from e


def name_of(name_or_path: str) -> str:
    """What a template is called in versions and reports."""
    return os.path.splitext(os.path.basename(name_or_path))[0]


def parse_template(text: str, where: str) -> Template:
    """A template from its YAML; `where` is told in messages.

    Raises:
      InputError: with all faults, one a line.
    """
    faults: list[Fault] = []
    try:
        faults.extend(_doubled(yaml.compose(text, yaml.SafeLoader)))
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as e:  # of a date out of range, a ValueError
        raise InputError(f"{where}: is not valid YAML: {e}. Mend that line.") from e
    except RecursionError as e:
        raise InputError(
            f"{where}: is nested too deeply. A template has a prompt, a list and a mapping."
        ) from e
    template = strict.load(Template, data if data is not None else {}, faults)
    if template is not None:
        faults.extend(_faults(template))
    if template is None or faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise InputError(f"{where}: {len(faults)} fault(s)\n{lines}")
    return template


def _doubled(node: yaml.Node | None) -> list[Fault]:
    """Keys that stand twice in the file's mapping, or in one that it holds: the last would win."""
    if not isinstance(node, yaml.MappingNode):
        return []
    faults, seen = [], set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen:
            problem = f"stands twice, again in line {key.start_mark.line + 1}"
            faults.append(Fault(name, problem, "Remove one: the last would win."))
        seen.add(name)
        faults.extend(_doubled(value))
    return faults


def _faults(template: Template) -> list[Fault]:
    faults = []
    used = {found[1] for found in _PLACEHOLDER.finditer(template.prompt)}
    for name in sorted(used - set(PLACEHOLDERS)):
        mend = nearest(name, PLACEHOLDERS)
        faults.append(Fault("prompt", f"there is nothing to stand for `{{{{{name}}}}}`", mend))
    for found in _OPENED.finditer(_PLACEHOLDER.sub(" ", template.prompt)):
        problem = f"`{found[0]}` is no placeholder and would be shown as it stands"
        names = ", ".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)
        mend = f"There are {names}, without filters. Braces that are meant: `{{ {{`."
        faults.append(Fault("prompt", problem, mend))
    if "seed" not in used:
        mend = "Write `{{seed}}` on a line of its own where the file is to be shown."
        faults.append(Fault("prompt", "no seed is shown", mend))
    if "focus" in used and not template.focus:
        faults.append(Fault("focus", "is empty", "List some, or leave `{{focus}}` out of prompt."))
    if template.focus and "focus" not in used:
        faults.append(Fault("prompt", "`focus` is nowhere used", "Write `{{focus}}` into it."))
    for name in template.languages:
        if name not in BY_NAME:
            faults.append(Fault("languages", f"there is no `{name}`", nearest(name, list(BY_NAME))))
    return faults


@functools.cache
def _shipped_conventions() -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load(_shipped("languages.yaml"))
    assert set(found) == set(BY_NAME), "each of the 18 languages has its part"
    return found


def _shipped(name: str) -> str:
    folder = importlib.resources.files("snowcoder_jax.synthesis")
    return (folder / "templates" / name).read_text(encoding="utf-8")
