"""From seeds to requests: a template for instruct teachers, the head of a file for base teachers.

A prompt is a pure function of the seed, the template and the recipe, so that every process that
asks, and the one that looks for the answers, makes the same requests under the same keys.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from snowcoder_jax import storage
from snowcoder_jax.languages import NOTEBOOK
from snowcoder_jax.recipe_synthesis import Synthesis
from snowcoder_jax.synthesis import completion, prompt_templates
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.replies import TAGS
from snowcoder_jax.synthesis.requests import Request, Sampling, Seed, make_request
from snowcoder_jax.synthesis.windows import Window, window_of
from snowcoder_jax.tokenizer import Tokenizer

# Of the code that makes prompts; raised where it would make another one of the same seed.
COMPLETION_VERSION = "completion-1"
INSTRUCT_VERSION = 1

_SPOKEN_NAMES = {"Shell": "shell script", NOTEBOOK: "Jupyter notebook (Python)"}
_BACKTICKS = re.compile(r"`+")
# Where a chat template writes a turn's end, tokenizers read it in a seed's text, too.
_CHAT_MARKS = re.compile(r"<\|\w+\|>|<(?:start|end)_of_turn>|\[/?INST\]")


class Prompter(Protocol):
    """Makes the request of one seed.

    Attributes:
      version: of the template and the code; in every request and in the corpus's provenance.
    """

    @property
    def version(self) -> str: ...

    def request(self, document: Seed) -> Request | str:
        """The request, or a word that says why the seed has none (`unparsable`, `short`, ...)."""


def make_prompter(ask: Ask) -> Prompter:
    """The prompter of an ask's teacher.

    Raises:
      InputError: the template is not there or faulty, with all its faults; no tokenizer.
    """
    if ask.synthesis.teacher.mode == "completion":
        return CompletionPrompter(ask, Tokenizer.load(ask.tokenizer))
    return InstructPrompter(ask)


def prompt_version(synthesis: Synthesis, template: str = "") -> str:
    """The version of the prompts of a recipe: changes wherever one of them could.

    Args:
      template: as in `Ask`; "": of the file that the recipe names.

    Raises:
      InputError: the template is not there or faulty.
    """
    if synthesis.teacher.mode == "completion":
        return COMPLETION_VERSION
    parsed = _template(synthesis, template)
    return f"{prompt_templates.name_of(synthesis.prompt)}-{INSTRUCT_VERSION}-{parsed.hash}"


def _template(synthesis: Synthesis, text: str) -> prompt_templates.Template:
    text = text or prompt_templates.template_text(synthesis.prompt)
    return prompt_templates.parse_template(text, f"prompt template `{synthesis.prompt}`")


class CompletionPrompter:
    """Asks a base model to go on from the head of a seed, which must be Python."""

    version = COMPLETION_VERSION

    def __init__(self, ask: Ask, tokenizer: Tokenizer) -> None:
        self._ask, self._tokenizer = ask, tokenizer

    def request(self, document: Seed) -> Request | str:
        """`unparsable`, `short` (no head of 16 tokens) or `language` where there is none.

        The request keeps the whole seed: what comes after the head is what must not be copied.
        """
        if document.language not in completion.LANGUAGES:
            return "language"
        # One token of `head_tokens` is the mark that begins a file.
        max_tokens = self._ask.synthesis.head_tokens - 1
        head, reason = completion.head_of(document.text, self._tokenizer, max_tokens)
        return reason or _request(self._ask, document, head, self.version)


class InstructPrompter:
    """Shows an instruct model a seed, or a window of its lines, inside a template."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._template = _template(ask.synthesis, ask.template)
        self.version = prompt_version(ask.synthesis, ask.template)

    def request(self, document: Seed) -> Request | str:
        """`empty`: the seed says nothing; `long_lines`: none of its lines fits; `chat_marks`: it
        holds what would end a turn of the chat.
        """
        if not document.text.strip():
            return "empty"
        draw = storage.seeded_hash(self._ask.run_seed, "synthesis window", document.id)
        window = window_of(document.text, self._ask.synthesis.max_seed_bytes, draw)
        if window is None:
            return "long_lines"
        if _CHAT_MARKS.search(window.text):
            return "chat_marks"
        seed = dataclasses.replace(document, **dataclasses.asdict(window))
        prompt = self._template.fill(
            {
                "language": _SPOKEN_NAMES.get(seed.language, seed.language),
                "tag": TAGS[seed.language],
                "extent": _extent(window),
                "seed": _fenced(window.text, TAGS[seed.language]),
                "focus": self._focus(seed.id),
                "conventions": self._template.conventions(seed.language),
            }
        )
        return _request(self._ask, seed, prompt, self.version)

    def _focus(self, seed_id: str) -> str:
        if not self._template.focus:
            return ""
        draw = storage.seeded_hash(self._ask.run_seed, "synthesis focus", seed_id)
        return self._template.focus[draw % len(self._template.focus)].strip()


def _request(ask: Ask, seed: Seed, prompt: str, version: str) -> Request:
    settings = ask.synthesis
    return make_request(
        seed,
        prompt,
        prompt_version=version,
        teacher_fingerprint=ask.teacher_fingerprint,
        sampling=Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
        run_seed=ask.run_seed,
    )


def _extent(window: Window) -> str:
    if window.first_line == 0:
        return "a file"
    return f"a part (lines {window.first_line} to {window.last_line}) of a longer file"


def _fenced(text: str, tag: str) -> str:
    """A code block whose fence no line of the text can close."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{tag}\n{text.rstrip()}\n{fence}"


class Requests:
    """Iterates over the requests of seeds, once; those without one are counted.

    Attributes:
      version: of the prompts.
      skipped: so far, by reason.
    """

    def __init__(self, prompter: Prompter, documents: Iterable[Seed]) -> None:
        self.version = prompter.version
        self.skipped: Counter[str] = Counter()
        self._requests = self._make(prompter, documents)

    def _make(self, prompter: Prompter, documents: Iterable[Seed]) -> Iterator[Request]:
        for document in documents:
            request = prompter.request(document)
            if isinstance(request, str):
                self.skipped[request] += 1
            else:
                yield request

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        return next(self._requests)


def requests(ask: Ask, documents: Iterable[Seed]) -> Requests:
    """The requests of `documents`, one by one, as `ask` has them made.

    Raises:
      InputError: as `make_prompter`.
    """
    return Requests(make_prompter(ask), documents)
