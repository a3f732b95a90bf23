"""What the annotator holds up as good code, and the windows it reads of a file."""

from __future__ import annotations

import importlib.resources
import json
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import xxhash

from snowcoder_jax import languages, recipe, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.model.encoder import Encoder
from snowcoder_jax.text.reader import clean_text
from snowcoder_jax.text.secrets import find_spans

# Modules of the standard library that are read for their own sake: one purpose each, a documented
# interface, plain algorithms, long reviewed. Thin wrappers, tables, platform glue and generated
# files are left out. They stand in for the paper's 220,000 high-quality files, in a local run.
GOOD_MODULES = (
    # algorithms and data structures
    *("bisect.py", "heapq.py", "graphlib.py", "difflib.py", "collections/__init__.py"),
    *("functools.py", "operator.py", "reprlib.py", "copy.py", "weakref.py", "_weakrefset.py"),
    *("random.py", "sched.py", "queue.py", "contextlib.py", "dataclasses.py", "enum.py"),
    # numbers and dates
    *("fractions.py", "statistics.py", "numbers.py", "calendar.py", "colorsys.py", "uuid.py"),
    # text and formats
    *("textwrap.py", "string.py", "shlex.py", "fnmatch.py", "glob.py", "tokenize.py"),
    *("csv.py", "configparser.py", "json/decoder.py", "json/encoder.py", "tomllib/_parser.py"),
    *("html/parser.py", "quopri.py", "base64.py", "gettext.py", "pprint.py", "netrc.py"),
    # the network, as formats and protocols
    *("ipaddress.py", "urllib/robotparser.py", "http/cookies.py", "wsgiref/headers.py"),
    *("hmac.py", "secrets.py", "selectors.py", "socketserver.py"),
    # concurrency
    *("concurrent/futures/_base.py", "concurrent/futures/thread.py", "asyncio/queues.py"),
    *("asyncio/locks.py", "asyncio/timeouts.py", "asyncio/taskgroups.py", "threading.py"),
    # files and programs
    *("tempfile.py", "filecmp.py", "linecache.py", "gzip.py", "cmd.py", "argparse.py"),
    *("timeit.py", "traceback.py", "codeop.py", "logging/handlers.py"),
)

# A window's worth of characters, with much to spare: code has 3 to 4 to a BERT token, and only a
# longer run of white space could use this up.
CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True)
class Example:
    """One document held up as good. `origin` is as the recipe's `annotator.positives` names it."""

    name: str
    language: str
    origin: str
    text: str


def positives(config: recipe.Annotator) -> list[Example]:
    """The documents that `config.positives` names, each content once, in a fixed order.

    An origin is `shipped_problems` (this project's own), `good_modules` (of the running Python),
    or a .jsonl file with a field `text` or `content` (and, if known, `language`) on each line.

    Raises:
      InputError: an origin is unknown, broken or empty.
    """
    chosen: dict[str, Example] = {}
    for origin in config.positives:
        found = list(_read_origin(origin))
        if not found:
            raise InputError(f"annotator.positives: {origin} holds no documents. Leave it out.")
        for example in found:
            chosen.setdefault(content_hash(example.text), example)
    return list(chosen.values())


def _read_origin(origin: str) -> Iterator[Example]:
    if origin == "shipped_problems":
        return _shipped_problems()
    if origin == "good_modules":
        return _good_modules()
    if origin.endswith(".jsonl"):
        return _jsonl(origin)
    raise InputError(
        f"annotator.positives: {origin!r} is unknown. Known are shipped_problems, good_modules, "
        "and the path of a .jsonl file with a field `text` on each line."
    )


def _shipped_problems() -> Iterator[Example]:
    folder = importlib.resources.files("snowcoder_jax") / "problems" / "positives"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        language = languages.detect(file.name)
        if language is not None:
            text = _clean(file.read_text("utf-8"), language)
            yield Example(file.name, language, "shipped_problems", text)


def _good_modules() -> Iterator[Example]:
    # Files rather than imports: nothing is run. One that another Python version lays out
    # otherwise is left out; the counts of `annotator.json` show it.
    root = sysconfig.get_paths()["stdlib"]
    for name in GOOD_MODULES:
        path = os.path.join(root, *name.split("/"))
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                yield Example(name, "Python", "good_modules", _clean(f.read(), "Python"))


def _clean(content: str, language: str) -> str:
    """As the same document reads in a corpus, so that the two have one `content_hash`."""
    return clean_text(content, language, find_spans(content, language))


def _jsonl(path: str) -> Iterator[Example]:
    if not storage.exists(path):
        raise InputError(f"annotator.positives: there is no file {path}. Correct the path.")
    with storage.open_read(path) as f:
        for number, line in enumerate(f, 1):
            if not line.strip():
                continue
            where = f"annotator.positives: {path}, line {number}:"
            try:
                row = json.loads(line)
            except ValueError as e:
                raise InputError(f"{where} is not JSON ({e}). Mend or remove the line.") from e
            text = row.get("text", row.get("content")) if isinstance(row, dict) else None
            if not isinstance(text, str):
                raise InputError(f"{where} has no string in `text` or `content`. Add one.")
            language = str(row.get("language", ""))
            try:
                text = _clean(text, language)
            except ValueError as e:
                raise InputError(f"{where} is no notebook ({e}). Mend or remove the line.") from e
            yield Example(f"{path}:{number}", language, path, text)


def content_hash(text: str) -> str:
    """32 hex digits that two texts share when they differ in white space at line ends alone."""
    normalised = "\n".join(line.rstrip() for line in text.splitlines()).strip()
    return xxhash.xxh3_128_hexdigest(normalised.encode("utf-8", "surrogatepass"))


def excluded(examples: Iterable[Example]) -> frozenset[str]:
    """The `content_hash` of each: a corpus document with one of them must not be a negative."""
    return frozenset(content_hash(example.text) for example in examples)


def sections(token_ids: Sequence[int], window: int, num_sections: int) -> list[Sequence[int]]:
    """Windows spread evenly over a file: for three its top, middle and bottom (section 3.2).

    Args:
      token_ids: of the whole file, without special tokens.
      window: tokens of a window; num_sections: at most so many windows, at least 1.

    Returns:
      One window for a file no longer than it; else windows of exactly `window` tokens, the first
      at the start and, where there are two or more, the last at the end. Windows that would start
      at the same token are given once.
    """
    assert min(window, num_sections) >= 1, (window, num_sections)
    room = len(token_ids) - window
    if room <= 0:
        return [token_ids]
    starts = {room * i // max(num_sections - 1, 1) for i in range(num_sections)}
    return [token_ids[start : start + window] for start in sorted(starts)]


def windows_of(
    encoder: Encoder, texts: Sequence[str], window_tokens: int, num_sections: int
) -> list[list[list[int]]]:
    """The windows of each text, as the encoder reads them: with its special tokens.

    Of a file so long that it holds `num_sections` windows many times over, only an excerpt around
    each window is tokenized, so that the time of a file is bounded whatever its size.

    Args:
      window_tokens: the two special tokens counted in.
    """
    window = window_tokens - 2
    excerpts = [_excerpts(text, window * CHARACTERS_PER_TOKEN, num_sections) for text in texts]
    flat = [excerpt for parts in excerpts for excerpt in parts]
    tokens = iter(encoder.tokenize(flat))
    windows: list[list[list[int]]] = []
    for parts in excerpts:
        if len(parts) == 1:
            found = sections(next(tokens), window, num_sections)
        else:
            places = [i / (len(parts) - 1) for i in range(len(parts))]
            found = [_window_at(next(tokens), window, place) for place in places]
        # An excerpt of white space alone tells nothing; a text of it still gets its one window.
        told = [ids for ids in found if ids] or [[]]
        windows.append([encoder.with_specials(ids) for ids in told])
    return windows


def _excerpts(text: str, num_characters: int, num_sections: int) -> list[str]:
    room = len(text) - num_characters
    if len(text) <= num_characters * max(num_sections, 2):
        return [text]
    if num_sections == 1:
        return [text[:num_characters]]
    starts = [room * i // (num_sections - 1) for i in range(num_sections)]
    return [text[start : start + num_characters] for start in starts]


def _window_at(token_ids: Sequence[int], window: int, place: float) -> Sequence[int]:
    start = int(place * max(len(token_ids) - window, 0))
    return token_ids[start : start + window]
