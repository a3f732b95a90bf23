"""What is to be asked, as a file: all that a process needs to take its part in the asking.

`snowcoder synthesize` writes `ask.json`; workers on other machines and in other environments
read it. It needs no recipe, no corpus and none of JAX, Beam or vLLM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from snowcoder_jax import storage, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_synthesis import Synthesis
from snowcoder_jax.strict import Fault

FILE_NAME = "ask.json"


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
    """

    synthesis: Synthesis
    run_seed: int
    teacher_fingerprint: str
    seeds: str
    store: str
    tokenizer: str = ""
    template: str = ""

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
      InputError: it is not there, or of another version.
    """
    if not path.endswith(".json"):
        path = storage.join(path, FILE_NAME)
    folder = path.rpartition("/")[0]
    if not storage.exists(path):
        raise InputError(f"{path}: is not there. `snowcoder synthesize RECIPE` writes it.")
    faults: list[Fault] = []
    ask = strict.load(Ask, storage.read_json(path), faults)
    if ask is None or faults:
        told = "; ".join(str(fault) for fault in faults)
        raise InputError(f"{path}: {told}. Write it again: `snowcoder synthesize RECIPE`.")
    return ask.with_folders(lambda seen: storage.resolve(seen, folder or "."))
