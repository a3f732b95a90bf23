"""Why a document is in or out: every stage's verdict on it, with value and threshold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError

# Columns that say nothing to a person.
_HIDDEN = {"id", "content", "ids"}


def explain(run: str, document: str) -> str:
    """A text of every stage's columns for the document.

    Args:
      run: the run's folder.
      document: its id, or its path or the end of one.

    Raises:
      InputError: the run or the document is not there, or the path fits several.
    """
    folders_path = storage.join(run, "folders.json")
    if not storage.exists(folders_path):
        raise InputError(f"{run}: is no run. Name a folder such as runs/local.")
    seen_from_run: dict[str, str] = storage.read_json(folders_path)
    folders = {name: storage.resolve(folder, run) for name, folder in seen_from_run.items()}
    found = list(_find(folders["ingest"], document))
    if not found:
        raise InputError(f"{document}: no such document in {run}. Give its id or path.")
    if len(found) > 1:
        names = "\n".join(f"  {row['id']}  {row['repo']}: {row['path']}" for _, _, row in found)
        raise InputError(f"{document}: fits {len(found)} documents. Name one by its id.\n{names}")
    relative, index, row = found[0]
    lines = [f"{row['repo']}: {row['path']}"]
    lines += [f"  {name}: {row[name]}" for name in ("id", "language", "license", "stars")]
    for name, folder in folders.items():
        lines += _stage_lines(name, storage.join(folder, relative), index)
    return "\n".join(lines)


def _find(corpus: str, document: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    from beam_pipelines import documents

    names = ["id", "repo", "path", "language", "license", "stars"]
    for shard in documents.list_shards(corpus):
        path = storage.join(shard.documents, shard.relative)
        for index, row in enumerate(documents.read_table(path, names).to_pylist()):
            whole = f"{row['repo']}/{row['path']}"
            if row["id"] == document or ("/" + whole).endswith("/" + document.lstrip("/")):
                yield shard.relative, index, row


def _stage_lines(name: str, path: str, index: int) -> list[str]:
    from beam_pipelines import documents

    if name == "ingest" or name.startswith("synth") or not storage.exists(path):
        return []
    (row,) = documents.read_table(path).slice(index, 1).to_pylist()
    shown = {k: v for k, v in row.items() if k not in _HIDDEN and v is not None}
    return [f"  {name}: " + ", ".join(f"{k} {v}" for k, v in shown.items())]
