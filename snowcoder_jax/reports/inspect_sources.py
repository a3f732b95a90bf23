"""The parts of the inspect page about where the files come from: repositories, licences, ledger."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from snowcoder_jax.reports import formats, inspect_plots
from snowcoder_jax.reports.inspect_data import Corpus
from snowcoder_jax.reports.inspect_run import Run
from snowcoder_jax.reports.inspect_samples import Facts
from snowcoder_jax.reports.inspect_sections import not_there, num_of, sizes_of
from snowcoder_jax.reports.inspect_tallies import Tally, common_grid
from snowcoder_jax.reports.markup import Html, bar, join, table, tag
from snowcoder_jax.text.reader import clean_name, clean_path

NUM_REPOSITORIES = 10


def repositories(run: Run, corpus: Corpus) -> list[object]:
    """How much of each language comes from how few repositories."""
    assert corpus.repositories is not None
    has_policy = run.is_done("policy")
    sizes = corpus.repositories
    if has_policy:
        sizes = sizes.filter(pc.greater(sizes["kept_files"], 0))
        files, num_bytes = "kept_files", "kept_bytes"
    else:
        files, num_bytes = "files", "bytes"
    what = "kept files" if has_policy else "documents"
    whole = sizes.group_by("repo").aggregate([(files, "sum"), (num_bytes, "sum")])
    panels = []
    for title, column in (("files a repository", files), ("bytes a repository", num_bytes)):
        values = np.asarray(whole[f"{column}_sum"].to_numpy(), np.float64)
        tally = Tally()
        tally.add(values, np.zeros(len(values), np.bool_))
        if tally.num_values and tally.highest > 1:
            median = formats.count_text(float(np.median(values)))
            note = f"{num_of(len(values), 'repository')}, median {median}"
            panels.append(inspect_plots.histogram(title, note, tally.bins(common_grid([tally]))))
    return [
        tag(
            "p",
            f"Of {what}. The effective number is exp(entropy of the shares of bytes): as many "
            "repositories of equal size would be as diverse. Copies are the share of a language's "
            "documents that the duplicates stage dropped.",
        ),
        _diversity(corpus, sizes, files, num_bytes),
        inspect_plots.grid(panels),
        tag("h3", "The largest repositories"),
        _largest(whole, f"{files}_sum", f"{num_bytes}_sum"),
    ]


def _diversity(corpus: Corpus, sizes: pa.Table, files: str, num_bytes: str) -> Html:
    documents: Counter[str] = Counter()
    copies: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (stage, _, rule, language), n in corpus.verdicts.items():
        if stage == "duplicates":
            documents[language] += n
            copies[rule][language] += n
    rows = []
    for language in corpus.languages():
        of_language = sizes.filter(pc.equal(sizes["language"], language))
        in_bytes = np.asarray(of_language[num_bytes].to_numpy(), np.float64)
        num_files = np.asarray(of_language[files].to_numpy(), np.float64)
        shares = in_bytes / max(1.0, in_bytes.sum())
        largest = int(np.argmax(shares)) if len(shares) else None
        name = "" if largest is None else clean_name(str(of_language["repo"][largest]))
        rows.append(
            [
                language,
                formats.count(int(num_files.sum())),
                formats.count(len(shares)),
                f"{effective_number(shares):,.1f}",
                formats.count(float(np.median(num_files))) if len(shares) else "",
                join([formats.percent(shares[largest]), tag("small", name, class_="below path")])
                if largest is not None
                else "",
                *(
                    formats.percent(formats.share(copies[rule][language], documents[language]))
                    for rule in ("exact_duplicate", "near_duplicate")
                ),
            ]
        )
    header = [
        "language",
        "files",
        "repositories",
        "effective number of them",
        "files a repository (median)",
        "largest repository, of bytes",
        "exact copies",
        "near copies",
    ]
    return table(header, rows, numeric=(1, 2, 3, 4, 5, 6, 7), class_="counts")


def effective_number(shares: npt.NDArray[np.float64]) -> float:
    """exp(entropy): `shares` [N] sum to 1; 0 where there are none."""
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum())) if len(positive) else 0.0


def _largest(whole: pa.Table, files: str, num_bytes: str) -> Html:
    order = [(num_bytes, "descending"), ("repo", "ascending")]
    ordered = whole.sort_by(order).slice(0, NUM_REPOSITORIES).to_pylist()
    total = sum(whole[num_bytes].to_pylist())
    rows = [
        [
            tag("span", clean_name(r["repo"]), class_="path"),
            formats.count(r[files]),
            formats.size(r[num_bytes]),
            bar(formats.share(r[num_bytes], total)),
        ]
        for r in ordered
    ]
    header = ["repository", "files", "bytes", "of all"]
    return table(header, rows, numeric=(1, 2), class_="bars")


def licenses(run: Run, corpus: Corpus) -> list[object]:
    """Licences by size, and which of them policy refused."""
    by_license: defaultdict[str, list[Facts]] = defaultdict(list)
    for group in corpus.groups:
        by_license[group["license"] or "unknown"].append(group)
    sizes = {name: sizes_of(groups) for name, groups in by_license.items()}
    ordered = sorted(sizes, key=lambda n: (-(sizes[n]["bytes"] or 0), -sizes[n]["files"], n))
    total = sum(s["files"] for s in sizes.values())
    rows = []
    for name in ordered:
        refused = sum(g["files"] for g in by_license[name] if g["stage"] == "license")
        kept = sum(g["files"] for g in by_license[name] if g["verdict"] == "pass")
        rows.append(
            [
                name,
                formats.count(sizes[name]["files"]),
                formats.size(sizes[name]["bytes"]),
                bar(formats.share(sizes[name]["files"], total)),
                formats.count(kept) if run.is_done("policy") else "",
                tag("span", "refused", class_="worse") if refused else "",
            ]
        )
    header = ["licence", "documents", "bytes", "of all documents", "kept", ""]
    rule = run.recipe.corpus.licenses
    note = "Only permissive licences are used." if rule == "permissive" else "Any licence is used."
    return [
        tag("p", note),
        table(header, rows, numeric=(1, 2, 4), class_="bars"),
        None if run.is_done("policy") else not_there("policy"),
    ]


def ledger(run: Run, corpus: Corpus) -> list[object]:
    """Files that never became documents, by reason, with some of them."""
    counts = corpus.ingest["ledger"]
    if not counts:
        return [tag("p", "Every file became a document.", class_="none")]
    rows = []
    for reason, n in sorted(counts.items(), key=lambda i: (-i[1], i[0])):
        facts = corpus.ledger.get(reason, {"samples": [], "bytes": None})
        paths = [
            tag("div", clean_path(s["repo"], s["path"]), class_="path") for s in facts["samples"]
        ] or [tag("span", "only counted: in none of the known languages", class_="none")]
        name = reason.replace("_", " ")
        rows.append([name, formats.count(n), formats.size(facts["bytes"]), join(paths)])
    return [table(["reason", "files", "bytes", "such as"], rows, numeric=(1, 2))]
