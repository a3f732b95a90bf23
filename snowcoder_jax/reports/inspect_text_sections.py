"""The parts of the inspect page that show files: dropped and kept, pairs, matches, secrets."""

from __future__ import annotations

from collections import Counter
from typing import Any

from snowcoder_jax.reports import formats
from snowcoder_jax.reports.highlight import code_block
from snowcoder_jax.reports.inspect_data import Corpus
from snowcoder_jax.reports.inspect_run import Run
from snowcoder_jax.reports.inspect_samples import Facts
from snowcoder_jax.reports.inspect_sections import NUM_LANGUAGES, not_there, num_of
from snowcoder_jax.reports.inspect_texts import Document, Marked
from snowcoder_jax.reports.markup import Html, bar, details, join, table, tag
from snowcoder_jax.text import rule_table
from snowcoder_jax.text.reader import clean_path

Documents = dict[str, Document]

# Signals that are about one line: the sample shows that line.
_OF_A_LINE = ("max_line_characters",)
_NO_TEXT = "Secrets have not been looked for yet, so no file is shown."


def wanted_ids(run: Run, corpus: Corpus) -> set[str]:
    """The documents whose text or name the sections show; none before secrets are known."""
    if not run.is_done("secrets"):
        return set()
    entries = [e for sample in corpus.samples.values() for e in sample]
    ids = {e["id"] for e in entries} | {e["cluster"] for e in entries if e.get("cluster")}
    return ids | {kept for _, kept in corpus.largest_clusters}


def rule_samples(run: Run, corpus: Corpus, documents: Documents) -> list[object]:
    """For every rule some dropped files, and the kept ones that came closest to it."""
    if not run.is_done("rules"):
        return [not_there("rules")]
    dropped: Counter[str] = Counter()
    for (stage, verdict, name, _), n in corpus.verdicts.items():
        if stage == "rules" and verdict != "pass":
            dropped[name] += n
    near = {bucket[1] for bucket in corpus.samples if bucket[0] == "near"}
    content: list[object] = [_text_note(run)]
    names = sorted({*dropped, *near}, key=lambda name: (-dropped[name], name))
    for name in names:
        rule = rule_table.BY_NAME.get(name)
        what = rule.description if rule else "the stage could not judge the file"
        files = num_of(dropped[name], "file") if dropped[name] else "no file"
        heading = join([tag("code", name), " ", tag("small", f"{what}: {files} dropped")])
        content.append(tag("h3", heading, id=f"rule-{name}"))
        for entry in corpus.samples.get(("rules", name), []):
            content.append(_rule_sample(entry, rule, documents, "dropped"))
        for entry in corpus.samples.get(("near", name), []):
            content.append(_rule_sample(entry, rule, documents, "kept, close to it"))
    if not names:
        content.append(tag("p", "No file was dropped by a rule.", class_="none"))
    return content


def _rule_sample(
    entry: Facts, rule: rule_table.Rule | None, documents: Documents, verdict: str
) -> Html:
    document = documents.get(entry["id"])
    mark = tag("strong", verdict, class_="worse" if verdict == "dropped" else "better")
    parts: list[object] = [mark, " "]
    # Of a yes-or-no signal the rule says all.
    if entry["value"] is not None and rule is not None and entry["threshold"] != 0:
        value = formats.decimal_text(entry["value"]) or "?"
        limit = formats.decimal_text(entry["threshold"]) or "?"
        bound = "at most" if rule.kind == "max" else "at least"
        parts += [tag("b", value, class_="score"), tag("small", f" ({bound} {limit}) ")]
    shown: Marked | None = None
    if document is not None:
        of_a_line = rule is not None and rule.signal in _OF_A_LINE
        shown = document.longest_line() if of_a_line else document.head()
    return details(join([*parts, _name(entry)]), _facts(entry), _code(entry, document, shown))


def _name(entry: Facts) -> Html:
    return join(
        [
            tag("span", clean_path(entry["repo"], entry["path"]), class_="path"),
            " ",
            tag("small", entry["language"]),
        ]
    )


def _facts(entry: Facts) -> Html:
    """Licence, size and the id with which `snowcoder why` tells more."""
    parts = [
        entry["license"] or "licence unknown",
        formats.size_text(entry["num_bytes"]),
        f"{formats.count_text(entry['num_tokens'])} tokens" if entry["num_tokens"] else None,
    ]
    text = " · ".join(part for part in parts if part)
    return tag("p", f"{text} · id ", tag("code", entry["id"]), class_="note")


def _code(entry: Facts, document: Document | None, shown: Marked | None) -> Html:
    if document is None:
        return tag("p", _NO_TEXT, class_="none")
    if shown is None:
        return tag("p", "This notebook cannot be read, so it has no text.", class_="none")
    return _block(shown, entry["language"])


def _block(shown: Marked, language: str) -> Html:
    # A notebook is shown as the script it becomes.
    code = code_block(shown.text, language, marks=shown.marks)
    if shown.first_line == 1:
        return code
    return join([tag("p", f"from line {shown.first_line:,}", class_="note"), code])


def _text_note(run: Run) -> Html:
    text = (
        "Samples are drawn by seeded hash. Secrets are replaced by markers, notebooks are shown "
        "as scripts, and only a part of each file is shown."
    )
    return tag("p", text if run.is_done("secrets") else _NO_TEXT)


# Duplicates


def duplicates(run: Run, corpus: Corpus, documents: Documents) -> list[object]:
    """Sizes of clusters, and pairs side by side."""
    if not run.is_done("duplicates"):
        return [not_there("duplicates")]
    dropped: Counter[str] = Counter()
    for (stage, verdict, rule, _), n in corpus.verdicts.items():
        if stage == "duplicates" and verdict != "pass":
            dropped[rule] += n
    if not dropped:
        return [tag("p", "No document is a copy of another.", class_="none")]
    num_clusters = sum(corpus.cluster_sizes.values())
    counts = ", ".join(num_of(n, r.replace("_", " ")) for r, n in sorted(dropped.items()))
    config = run.recipe.corpus.duplicates
    content: list[object] = [
        tag(
            "p",
            f"{counts}, in {num_of(num_clusters, 'cluster')}; of each cluster one document is "
            f"kept. Near means a Jaccard similarity of at least {config.threshold:g} over "
            f"{config.ngram_words}-grams of words.",
        ),
        tag("div", _cluster_sizes(corpus), _largest_clusters(corpus, documents), class_="columns"),
    ]
    samples = corpus.samples
    near = samples.get(("duplicates", "near_duplicate"), [])
    shown = {entry["id"] for entry in near}
    pairs = {
        "Near-duplicates": near,
        "The least alike of them": [
            entry for entry in samples.get(("least alike",), []) if entry["id"] not in shown
        ],
        "Exact copies": samples.get(("duplicates", "exact_duplicate"), []),
    }
    for title, entries in pairs.items():
        if entries:
            content.append(tag("h3", title))
            content += [_pair(run, entry, documents) for entry in entries]
    return content


def _cluster_sizes(corpus: Corpus) -> Html:
    """Clusters by size: 2, 3, 4, then doubling."""
    rows: Counter[int] = Counter()
    members: Counter[int] = Counter()
    for size, n in corpus.cluster_sizes.items():
        first = size if size <= 4 else 1 << ((size - 1).bit_length() - 1) | 1
        rows[first] += n
        members[first] += n * size
    largest = max(rows.values())
    lines = []
    for first in sorted(rows):
        last = first if first <= 4 else (first - 1) * 2
        lines.append(
            [
                f"{first}" if first == last else f"{first} to {last}",
                formats.count(rows[first]),
                formats.count(members[first]),
                bar(formats.share(rows[first], largest), "second"),
            ]
        )
    header = ["documents in a cluster", "clusters", "documents", ""]
    return table(header, lines, caption="Sizes of clusters", numeric=(1, 2), class_="bars")


def _largest_clusters(corpus: Corpus, documents: Documents) -> Html:
    rows = []
    for size, kept in corpus.largest_clusters:
        document = documents.get(kept)
        name = kept if document is None else clean_path(document.repo, document.path)
        rows.append([tag("span", name, class_="path"), formats.count(size)])
    return table(["kept document", "of"], rows, caption="The largest clusters", numeric=(1,))


def _pair(run: Run, entry: Facts, documents: Documents) -> Html:
    dropped, kept = documents.get(entry["id"]), documents.get(entry["cluster"])
    name = join([tag("strong", "dropped", class_="worse"), " ", _name(entry)])
    if dropped is None or kept is None:
        return details(name, _facts(entry), tag("p", _NO_TEXT, class_="none"))
    pair = dropped.beside(kept, run.recipe.corpus.duplicates.ngram_words)
    if pair is None:
        return details(name, _facts(entry), _code(entry, dropped, None))
    summary = join(
        [
            tag("b", f"{pair.similarity:.3f}", class_="score"),
            " ",
            name,
            " ",
            tag("strong", "kept", class_="better"),
            " ",
            tag("span", clean_path(kept.repo, kept.path), class_="path"),
        ]
    )
    sides = [
        tag("figure", tag("figcaption", f"{verdict}, from line {side.first_line:,}"), block)
        for verdict, side in (("dropped", pair.first), ("kept", pair.second))
        for block in [code_block(side.text, entry["language"], marks=side.marks)]
    ]
    note = f"Similarity of these two {pair.similarity:.3f}"
    if entry["value"] is not None:
        note += f"; highest to any of its cluster {entry['value']:.3f}"
    note += ". Lines that the other does not have are marked."
    return details(
        summary, _facts(entry), tag("p", note, class_="note"), tag("div", *sides, class_="pair")
    )


# Contamination and secrets


def contamination(run: Run, corpus: Corpus, documents: Documents) -> list[object]:
    """Documents that repeat a benchmark, with the repeated text marked."""
    if not run.is_done("contamination"):
        return [not_there("contamination")]
    if not corpus.matches:
        return [tag("p", "No document repeats a benchmark.", class_="none")]
    rows = [
        [
            benchmark,
            method.replace("_", " ") or "—",
            formats.count(n),
            formats.count(len(corpus.matched_items[benchmark])),
        ]
        for (benchmark, method), n in sorted(corpus.matches.items())
    ]
    header = ["benchmark", "found by", "documents", "its items that were met"]
    content: list[object] = [table(header, rows, numeric=(2, 3))]
    for bucket, entries in corpus.samples.items():
        if bucket[0] == "contamination":
            content.append(tag("h3", bucket[1]))
            content += [_match(entry, documents.get(entry["id"])) for entry in entries]
    return content


def _match(entry: Facts, document: Document | None) -> Html:
    shown = document.around(str(entry["match"] or "")) if document is not None else None
    item = str(entry["item"])
    if not item.startswith(f"{entry['benchmark']}/"):
        item = f"{entry['benchmark']} {item}"
    summary = join([tag("b", item), " ", _name(entry)])
    note = None
    if shown is not None and not shown.marks:
        note = tag("p", "The match as a whole does not stand in the file as such.", class_="note")
    return details(summary, _facts(entry), note, _code(entry, document, shown))


def secrets(run: Run, corpus: Corpus, documents: Documents) -> list[object]:
    """Secrets and personal data by kind, and where they stood: only markers are shown."""
    if not run.is_done("secrets"):
        return [not_there("secrets")]
    if not corpus.secrets:
        return [tag("p", "None was found.", class_="none")]
    total = sum(group["files"] for group in corpus.groups)
    rows = [
        [
            kind.replace("_", " "),
            formats.count(counts["secrets"]),
            formats.count(counts["documents"]),
            formats.percent(formats.share(counts["documents"], total)),
        ]
        for kind, counts in sorted(corpus.secrets.items(), key=lambda i: -i[1]["documents"])
    ]
    languages = corpus.secret_languages
    ordered = sorted(languages, key=lambda name: (-languages[name], name))
    text = ", ".join(f"{name} {formats.count_text(languages[name])}" for name in ordered)
    content: list[object] = [
        tag("p", "Each is replaced by a marker wherever text is read; no file is dropped for it."),
        table(["kind", "found", "documents", "of all"], rows, numeric=(1, 2, 3)),
        tag("p", f"Documents with any, by language: {text}.", class_="note"),
    ]
    for bucket, entries in corpus.samples.items():
        if bucket[0] == "secrets":
            content.append(tag("h3", bucket[1].replace("_", " ")))
            for entry in entries:
                document = documents.get(entry["id"])
                shown = document.secrets(bucket[1]) if document is not None else None
                count = tag("b", formats.count_text(entry["value"]), class_="score")
                summary = join([count, " ", _name(entry)])
                content.append(details(summary, _facts(entry), _code(entry, document, shown)))
    return content


def kept_samples(run: Run, corpus: Corpus, documents: Documents) -> list[object]:
    """Files that passed everything, for a look at what is trained on."""
    if not run.is_done("policy"):
        return [not_there("policy")]
    content: list[object] = [_text_note(run)]
    for language in corpus.languages()[:NUM_LANGUAGES]:
        entries: list[dict[str, Any]] = corpus.samples.get(("kept", language), [])
        if entries:
            content.append(tag("h3", language))
        for entry in entries:
            document = documents.get(entry["id"])
            shown = document.head() if document is not None else None
            content.append(details(_name(entry), _facts(entry), _code(entry, document, shown)))
    return content
