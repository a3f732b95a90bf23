"""The part of the pages about synthetic data: what became of every request, what it cost,
samples of each end; and what `synthesis_comparison_section` adds."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from snowcoder_jax.reports import formats
from snowcoder_jax.reports.highlight import code_block
from snowcoder_jax.reports.markup import Html, at, bar, details, join, mapping, sequence, table, tag
from snowcoder_jax.reports.synthesis_comparison_section import comparison

# Reasons -> what they say.
DESCRIPTIONS = {
    "error": "the teacher could not answer: a dead letter",
    "cut_off": "the reply did not end by itself",
    "no_code_block": "the reply holds no code block",
    "several_code_blocks": "the reply holds more than one code block",
    "open_code_block": "the code block has no end",
    "wrong_language": "the code block is of another language than was asked for",
    "empty": "nothing was written",
    "unparsable": "the code does not parse",
    "no_new_statement": "no new whole statement at the top level",
    "too_short": "fewer tokens than min_new_tokens",
    "repetition": "the same lines over and over",
    "copy_of_seed": "shares max_similarity or more of its 5-grams with its seed",
    "missing_module": "imports a module that the sandbox does not have",
    "does_not_run": "fails in the sandbox",
    "near_duplicate": "like another synthetic document or one of the corpus",
    "exact_duplicate": "the same as another document",
    "contaminated": "repeats a benchmark",
}


def synthesis(report: dict[str, Any]) -> list[object]:
    """Yield and cost, reasons of refusal at every stage, the comparison, samples."""
    data = mapping(report.get("synthesis"))
    if not data:
        return [tag("p", formats.missing("this run has no synthetic data yet"))]
    note = data.get("mixture_note")
    return [
        tag("p", note) if note else None,
        tag("div", _sizes(data), _cost(data), class_="columns"),
        _reasons(data),
        _notes(data),
        _dead_letters(mapping(at(data, "asked", "dead_letters"))),
        *comparison(mapping(data.get("comparison"))),
        *samples(sequence(data.get("samples"))),
    ]


def _sizes(data: dict[str, Any]) -> Html:
    kept = data.get("kept")
    rows: list[list[object]] = [
        ["teacher", formats.text(data.get("teacher"))],
        ["requests", formats.count(data.get("requests"))],
        ["answers accepted", formats.count(data.get("accepted"))],
        ["documents kept by all stages", formats.count(kept)] if kept is not None else [],
        ["yield", formats.percent(data.get("yield"))],
    ]
    versions = mapping(data.get("prompt_versions"))
    for version, n in versions.items():
        count = f" ({formats.count_text(n) or '?'})" if len(versions) > 1 else None
        rows.append(["prompts", join([tag("code", version), count])])
    return table(["", ""], [r for r in rows if r], numeric=(1,), class_="plain")


def _cost(data: dict[str, Any]) -> Html:
    """Tokens, machine time and dollars, beside what was expected before the first answer."""
    asked, tokens = mapping(data.get("asked")), mapping(data.get("tokens"))
    spent, before = mapping(asked.get("spent")), mapping(asked.get("estimate"))
    written = spent.get("new_tokens", tokens.get("generated"))
    rows: list[list[object]] = [
        ["tokens written", formats.count(written), _expected(before, "new_tokens")],
        ["of them kept and learnt from", formats.count(tokens.get("kept")), ""],
    ]
    if tokens.get("copied"):
        what = "tokens copied from seeds (not learnt from)"
        rows.append([what, formats.count(tokens.get("copied")), ""])
    if spent:
        seconds = spent.get("machine_seconds")
        expected = formats.number(before.get("dollars"))
        rows += [
            [
                "tokens of prompts read",
                formats.count(spent.get("prompt_tokens")),
                _expected(before, "prompt_tokens"),
            ],
            ["machine time, all workers", formats.duration(seconds), ""],
            [
                "cost",
                _dollars(spent.get("dollars")),
                "" if expected is None else _dollars(expected),
            ],
        ]
    if asked:
        rows.append(["dead letters", formats.count(asked.get("dead")), ""])
    return table(["", "", "expected before" if before else ""], rows, numeric=(1, 2))


def _expected(before: dict[str, Any], name: str) -> object:
    return formats.count(before[name]) if before.get(name) is not None else ""


def _dollars(value: object) -> Html:
    amount = formats.number(value)
    if amount is None:
        return formats.missing("no price given")
    return tag("span", f"${amount:,.2f}", title=repr(value))


def _reasons(data: dict[str, Any]) -> Html | None:
    """One line for each end that a request came to."""
    whole = data.get("requests")
    ends: list[tuple[object, object, Any, Any]] = [
        (tag("b", "kept"), "", data.get("kept", data.get("accepted")), None)
    ]
    for row in sequence(data.get("reasons")):
        end = (at(row, "stage") or "?", at(row, "reason") or "?")
        ends.append((*end, at(row, "documents"), at(row, "languages")))
    if len(ends) == 1 and ends[0][2] is None:
        return None
    rows = []
    for stage, reason, n, languages in ends:
        share = formats.share(n, whole)
        rows.append(
            [
                stage,
                join([str(reason).replace("_", " "), _described(str(reason))]),
                formats.count(n),
                formats.percent(share),
                bar(share, "" if languages is None else "second"),
                tag("span", _counted(mapping(languages)), class_="small why"),
            ]
        )
    header = ["stage", "reason", "documents", "of all requests", "", "languages"]
    caption = "What became of each request"
    return table(header, rows, caption=caption, numeric=(2, 3), class_="bars")


def _described(reason: str) -> Html | None:
    text = DESCRIPTIONS.get(reason)
    return tag("small", text, class_="below") if text else None


def _counted(counts: dict[str, Any]) -> str:
    """`Python 12, Go 3`, the most first."""
    ordered = sorted(counts.items(), key=lambda item: (-(formats.number(item[1]) or 0), item[0]))
    return ", ".join(
        f"{name.replace('_', ' ')} {formats.count_text(n) or '?'}" for name, n in ordered
    )


def _notes(data: dict[str, Any]) -> Html | None:
    """Sentences on what the table does not hold."""
    notes = ["A request is counted at the first stage that refuses it."]
    cut = sum(n for n in mapping(data.get("cut_off")).values() if formats.is_number(n))
    if cut:
        notes.append(f"{formats.count_text(cut)} refused answers were ended by max_new_tokens.")
    told = {
        "Seeds that no request was made of": at(data, "seeds", "skipped"),
        "Documents of the selection in languages that cannot be judged": at(
            data, "seeds", "unusable_language"
        ),
        "Documents in which a secret is replaced by a marker": data.get("secrets"),
    }
    for what, counts in told.items():
        if mapping(counts):
            notes.append(f"{what}: {_counted(mapping(counts))}.")
    return tag("p", " ".join(notes), class_="note") if sequence(data.get("reasons")) else None


def _dead_letters(letters: dict[str, Any]) -> Html | None:
    """Requests that the teacher could not answer, by the word of its error, with some of them."""
    counts = mapping(letters.get("counts"))
    if not counts:
        return None
    rows = [
        [
            str(at(letter, "error") or "?"),
            tag("span", f"{at(letter, 'repo') or '?'}: {at(letter, 'path') or '?'}", class_="path"),
            tag("code", str(at(letter, "key") or "?")),
        ]
        for letter in sequence(letters.get("samples"))
    ]
    return details(
        f"Dead letters: {_counted(counts)}",
        tag(
            "p",
            "They are not asked again; to have them asked, remove the files dead-*.jsonl of the "
            "store of answers.",
            class_="note",
        ),
        table(["the teacher's words", "seed", "request"], rows, class_="prose"),
    )


# Samples


def samples(all_samples: list[Any]) -> list[object]:
    """What was given beside what was written, by end; the first accepted one is open."""
    content: list[object] = []
    if all_samples:
        content += [
            tag("h3", "Samples"),
            tag(
                "p",
                "Drawn by seeded hash. Secrets are replaced by markers; lines that stand in the "
                "seed too, or in what a copy is a copy of, are marked.",
                class_="note",
            ),
        ]
    for i, (title, group) in enumerate(groupby(all_samples, _title)):
        if title:
            content.append(tag("h4", title))
        content += [_sample(s, open_=i == j == 0) for j, s in enumerate(group)]
    return content


def _title(sample: Any) -> str:
    stage, reason = at(sample, "stage"), str(at(sample, "reason") or "?")
    if at(sample, "accepted") and stage is None:
        return f"Accepted: {at(sample, 'language')}" if at(sample, "language") else "Accepted"
    if stage == "secrets":
        return f"Accepted, with a secret replaced: {reason.replace('_', ' ')}"
    told = reason.replace("_", " ")
    return (
        f"Refused by {stage or '?'}: {told}" if stage != "answers" else f"Refused answers: {told}"
    )


def _sample(sample: Any, open_: bool) -> Html:
    accepted = at(sample, "accepted")
    if accepted is None:
        mark = formats.missing("verdict not recorded")
    else:
        word, class_ = ("accepted", "better") if accepted else ("refused", "worse")
        mark = tag("strong", word, class_=class_)
    reason = at(sample, "reason")
    why = f": {str(reason).replace('_', ' ')}" if reason and not accepted else ""
    measured = _measured(sample)
    language = str(at(sample, "language") or "Python")
    summary = join(
        [
            mark,
            why,
            measured,
            " — seed ",
            tag("span", str(at(sample, "seed_path") or "?"), class_="path"),
            " ",
            tag("small", language),
        ]
    )
    detail = at(sample, "detail")
    given, marks = at(sample, "given"), str(at(sample, "marks") or "")
    caption = "given: the head of the seed" if at(sample, "given_is") == "head" else "the seed"
    figures = [
        tag("figure", tag("figcaption", text), code_block(code, language, class_, marked))
        for text, code, class_, marked in (
            (str(at(sample, "compared_with") or caption), given, "given", ""),
            (
                "written by the teacher",
                at(sample, "written"),
                "written",
                marks if len(marks) == 2 else "",
            ),
        )
        if code is not None or class_ == "written"
    ]
    return details(
        summary,
        tag("p", detail, class_="note") if detail else None,
        tag("div", *figures, class_="pair"),
        open_=open_,
    )


def _measured(sample: Any) -> Html | None:
    value, threshold = formats.decimal_text(at(sample, "value")), at(sample, "threshold")
    if value is None:
        return None
    limit = formats.decimal_text(threshold)
    return tag("small", f" {value} (limit {limit})" if limit else f" {value}")
