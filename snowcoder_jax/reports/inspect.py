"""`snowcoder inspect`: a static page of a run's corpus, to look at before tokens are spent on it.

Counts come from the stages' own columns, texts through the one reader: what the secrets stage
found is not on the page. The same run gives the same bytes.
"""

from __future__ import annotations

from snowcoder_jax import storage
from snowcoder_jax.reports import (
    formats,
    inspect_data,
    inspect_sections,
    inspect_sources,
    inspect_text_sections,
    synthesis_facts,
    synthesis_sections,
)
from snowcoder_jax.reports.inspect_data import Corpus
from snowcoder_jax.reports.inspect_run import Run, open_run
from snowcoder_jax.reports.inspect_texts import Document, read_documents
from snowcoder_jax.reports.markup import Html, tag
from snowcoder_jax.reports.page import shell

PAGE = "inspect/index.html"

# (anchor, title, builder), in the order of the page.
_COUNTS = {
    "funnel": ("Funnel", inspect_sections.funnel),
    "rules": ("Rules", inspect_sections.rules),
    "signals": ("Signals", inspect_sections.signals),
    "repositories": ("Repositories", inspect_sources.repositories),
    "licenses": ("Licences", inspect_sources.licenses),
    "ledger": ("Ledger", inspect_sources.ledger),
    "scores": ("Scores", inspect_sections.scores),
    "selections": ("Selections", inspect_sections.selections),
}
_TEXTS = {
    "files": ("Files by rule", inspect_text_sections.rule_samples),
    "duplicates": ("Duplicates", inspect_text_sections.duplicates),
    "contamination": ("Contamination", inspect_text_sections.contamination),
    "secrets": ("Secrets", inspect_text_sections.secrets),
    "kept": ("Kept files", inspect_text_sections.kept_samples),
}
_SYNTHESIS = {"synthesis": "Synthetic data"}
_ORDER = (
    "funnel",
    "rules",
    "signals",
    "files",
    "duplicates",
    "contamination",
    "secrets",
    "repositories",
    "licenses",
    "ledger",
    "kept",
    "scores",
    "selections",
    "synthesis",
)


def write_page(folder: str, num_samples: int) -> str:
    """Write `inspect/index.html` into a run's folder (local or a URL); returns its path.

    Args:
      folder: `runs/NAME`, with at least its documents.
      num_samples: files shown of a kind.

    Raises:
      InputError: the folder is no run, holds no documents, or cannot be written.
    """
    run = open_run(folder)
    corpus = inspect_data.collect(run, num_samples)
    documents = read_documents(run, inspect_text_sections.wanted_ids(run, corpus))
    path = storage.join(folder, PAGE)
    synthetic = synthesis_facts.gather(run, num_samples)
    storage.write_bytes(path, render(run, corpus, documents, synthetic).encode())
    return path


def render(
    run: Run,
    corpus: Corpus,
    documents: dict[str, Document],
    synthetic: synthesis_facts.Facts | None,
) -> str:
    """The page as a whole HTML document."""
    titles = {name: title for name, (title, _) in (*_COUNTS.items(), *_TEXTS.items())}
    titles |= _SYNTHESIS
    sections = []
    for name in _ORDER:
        if name in _COUNTS:
            content = _COUNTS[name][1](run, corpus)
        elif name in _SYNTHESIS:
            content = _synthesis(run, synthetic)
        else:
            content = _TEXTS[name][1](run, corpus, documents)
        sections.append(tag("section", tag("h2", titles[name]), *content, id=name))
    links = [tag("a", titles[name], href=f"#{name}") for name in _ORDER]
    return shell(
        f"Corpus of {run.recipe.name} · SnowCoder-JAX",
        _opening(run, corpus),
        tag("nav", *links, aria_label="Sections"),
        tag("main", *sections),
        tag(
            "footer",
            "Every figure comes from the files that the stages of this run left; ",
            tag("code", "snowcoder why RUN ID"),
            " tells everything about one document.",
        ),
    )


def _synthesis(run: Run, synthetic: synthesis_facts.Facts | None) -> list[object]:
    if synthesis_facts.STEP not in run.folders:
        return [tag("p", "This recipe has no synthetic documents.", class_="none")]
    if synthetic is None:
        return [inspect_sections.not_there(synthesis_facts.STEP)]
    return synthesis_sections.synthesis({"synthesis": synthetic})


def _opening(run: Run, corpus: Corpus) -> Html:
    missing = inspect_sections.missing_steps(run)
    return tag(
        "header",
        tag("p", "SnowCoder-JAX corpus", class_="kicker"),
        tag("h1", run.recipe.name),
        tag(
            "p",
            tag("b", "Not everything was run yet"),
            f". Still to come: {', '.join(missing)}.",
            class_="banner",
        )
        if missing
        else None,
        _key_figures(run, corpus),
    )


def _key_figures(run: Run, corpus: Corpus) -> Html:
    documents = corpus.ingest["documents"]
    kept = sum(g["files"] for g in corpus.groups if g["verdict"] == "pass")
    num_bytes = sum(g["bytes"] or 0 for g in corpus.groups if g["verdict"] == "pass")
    dropped = {
        stage: sum(
            n for (s, verdict, *_), n in corpus.verdicts.items() if s == stage and verdict != "pass"
        )
        for stage in ("rules", "duplicates", "contamination")
    }
    repos = set() if corpus.repositories is None else set(corpus.repositories["repo"].to_pylist())
    with_policy, with_secrets = run.is_done("policy"), run.is_done("secrets")
    secrets = sum(counts["secrets"] for counts in corpus.secrets.values())
    share = formats.percent_text(formats.share(kept, documents))
    rows: list[tuple[str, object, object]] = [
        ("documents", formats.count(documents), f"of {corpus.ingest['files']:,} files listed"),
        (
            "kept",
            formats.count(kept) if with_policy else formats.missing(),
            f"{share}, {formats.size_text(num_bytes)}" if with_policy else "",
        ),
        (
            "repositories",
            formats.count(len(repos)),
            ", ".join(
                [
                    inspect_sections.num_of(len(corpus.languages()), "language"),
                    inspect_sections.num_of(len(corpus.ingest["sources"]), "source"),
                ]
            ),
        ),
    ]
    units = {
        "rules": "documents beyond a threshold",
        "duplicates": "copies of another",
        "contamination": "documents with a benchmark",
    }
    for stage, n in dropped.items():
        value = formats.count(n) if run.is_done(stage) else formats.missing()
        rows.append((stage, value, units[stage]))
    value = formats.count(secrets) if with_secrets else formats.missing()
    rows.append(("secrets", value, "replaced by markers"))
    cards = [
        tag("div", tag("dt", name), tag("dd", tag("b", value), tag("small", unit)))
        for name, value, unit in rows
    ]
    return tag("dl", *cards, class_="figures")
