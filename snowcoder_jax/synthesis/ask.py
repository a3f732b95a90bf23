"""What is to be asked, as a file: all that a process needs to take its part in the asking.

`snowcoder synthesize` writes `ask.json`; workers on other machines and in other environments
read it. It needs no recipe, no corpus and none of JAX, Beam or vLLM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from snowcoder_jax import storage, strict
from snowcoder_jax.code_version import code_fingerprint
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_synthesis import Synthesis
from snowcoder_jax.strict import Fault

FILE_NAME = "ask.json"
# What makes the questions; who asks them, and how, changes no answer.
PROMPT_CODE = (
    "snowcoder_jax/synthesis/completion.py",
    "snowcoder_jax/synthesis/prompt_templates.py",
    "snowcoder_jax/synthesis/prompts.py",
    "snowcoder_jax/synthesis/replies.py",
    "snowcoder_jax/synthesis/requests.py",
    "snowcoder_jax/synthesis/templates/languages.yaml",
    "snowcoder_jax/synthesis/windows.py",
)


def prompt_code() -> str:
    """Hash of this process's code that makes the questions: another makes other keys."""
    return code_fingerprint(*PROMPT_CODE)


@dataclasses.dataclass(frozen=True)
class Ask:
    """One synthesis, ready to be asked.

    Attributes:
      synthesis: the recipe's.
      run_seed: the recipe's `seed`.
      teacher_fingerprint: part of every request's key, so that all processes agree on the keys.
      seeds: folder of `part-NNNNN.parquet` (`SEED_SCHEMA` of `synthesis/seeds.py`).
      store: folder of the answers; asks of the same teacher share it.
      tokenizer: folder of this project's tokenizer, for base teachers; "" for others.
      template: of instruct teachers, the text of the prompt template, so that it travels along;
        "": of the file that `synthesis.prompt` names.
      code: `prompt_code()` of the process that made it.
    """

    synthesis: Synthesis
    run_seed: int
    teacher_fingerprint: str
    seeds: str
    store: str
    tokenizer: str = ""
    template: str = ""
    code: str = dataclasses.field(default_factory=prompt_code)

    def save(self, folder: str) -> None:
        """Write `ask.json`; its folders as seen from there, so that all may be moved together."""
        told = self.with_folders(lambda path: storage.relative(path, folder))
        storage.write_json(storage.join(folder, FILE_NAME), strict.to_plain(told))

    def with_folders(self, change: Callable[[str], str]) -> Ask:
        return dataclasses.replace(
            self,
            seeds=change(self.seeds),
            store=change(self.store),
            tokenizer=change(self.tokenizer) if self.tokenizer else "",
        )


def load_ask(path: str) -> Ask:
    """Read `ask.json`, or the one in the folder `path`.

    Raises:
      InputError: it is not there, or of another version; other code than this process's made it,
        so that nobody would look for the answers.
    """
    if not path.endswith(".json"):
        path = storage.join(path, FILE_NAME)
    folder = path.rpartition("/")[0]
    if not storage.exists(path):
        raise InputError(f"{path}: is not there. `snowcoder synthesize RECIPE` writes it.")
    faults: list[Fault] = []
    told = storage.read_json(path)
    ask = strict.load(Ask, told, faults)
    if ask is None or faults:
        problems = "; ".join(str(fault) for fault in faults)
        raise InputError(f"{path}: {problems}. Write it again: `snowcoder synthesize RECIPE`.")
    if told.get("code") != prompt_code():
        raise InputError(
            f"{path}: another version of snowcoder_jax/synthesis wrote it than is here, and makes "
            "other prompts: nobody would look for the answers. Take the same version on all "
            "machines, or write it again with this one: `snowcoder synthesize RECIPE --dry-run` "
            "prints the folder for its workers."
        )
    return ask.with_folders(lambda seen: storage.resolve(seen, folder or "."))
