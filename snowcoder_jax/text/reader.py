"""The one way to a document's text: secrets redacted, notebooks turned into scripts.

Whatever is shown, embedded, tokenised or sent to a teacher goes through `clean_text`. Only rules,
secrets and duplicates may see raw content.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence

from snowcoder_jax import languages
from snowcoder_jax.text import secrets
from snowcoder_jax.text.secrets import Span

NOTEBOOK = languages.NOTEBOOK


def clean_text(
    content: str, language: str, spans: Sequence[Span] | Sequence[Mapping[str, object]]
) -> str:
    """The text of a document.

    Args:
      content: raw, as ingested.
      language: a notebook becomes a script in jupytext's percent form, its markdown as comments.
      spans: of the secrets stage (`secrets.find_spans` with this language), in UTF-8 bytes of
        `content`; replaced by markers (`secrets.redact`) before anything else.

    Raises:
      ValueError: a notebook that cannot be read.
    """
    text = secrets.redact(content, spans, language)
    return notebook_to_script(text) if language == NOTEBOOK else text


def clean_name(name: str) -> str:
    """A repository's name or a path as it may be learnt: it can hold an address, too."""
    return secrets.redact(name, secrets.find_spans(name))


def clean_path(repo: str, path: str, between: str = "/") -> str:
    """A repository's name and a path in it as they may be shown."""
    # Each by itself: `password: ` before a path would make a secret of it.
    return f"{clean_name(repo)}{between}{clean_name(path)}"


def notebook_to_script(content: str) -> str:
    """The script that a Jupyter notebook holds, outputs and metadata left out.

    Raises:
      ValueError: it is no notebook.
    """
    import jupytext  # slow to import, and most corpora hold few notebooks
    import nbformat

    try:
        data = json.loads(content)
    except RecursionError as e:
        raise ValueError("notebook: nested too deeply") from e
    if not isinstance(data, dict) or not ("cells" in data or "worksheets" in data):
        raise ValueError("notebook: holds no cells")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats: an error follows, or nothing does
            notebook = jupytext.reads(content, fmt="ipynb")
        # Names and versions of a kernel are not part of what somebody wrote.
        notebook.metadata = nbformat.NotebookNode(
            {"jupytext": {"notebook_metadata_filter": "-all"}}
        )
        for cell in notebook.cells:
            cell.metadata = nbformat.NotebookNode()
        script = str(jupytext.writes(notebook, fmt="py:percent"))
        script.encode()  # half of a surrogate pair, as JSON may have it escaped, is no text
        return script
    except Exception as e:  # whatever malformed JSON does to either library
        raise ValueError(f"notebook: {type(e).__name__}") from e
