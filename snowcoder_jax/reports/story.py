"""What happened, in plain words made from the numbers: better, worse and "no difference told
apart" are kept distinct, and what was not measured is said to be so."""

from __future__ import annotations

import itertools
from typing import Any, Literal

from snowcoder_jax.reports import formats
from snowcoder_jax.reports.markup import Html, at, join, mapping, sequence, tag

Verdict = Literal["better", "worse", "no difference told apart", "not measured"]
# Below this many parameters no published base model solves a noticeable share of HumanEval.
SMALL_PARAMETERS = 50_000_000
# Chosen: intervals from resampling fewer documents than this are too narrow to be put in words.
MIN_COMPARED = 30
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def in_words(number: int) -> str:
    return _WORDS[number] if 0 <= number < len(_WORDS) else str(number)


def verdict(difference: Any) -> Verdict:
    """What a difference in bits per byte with its interval says (lower is better).

    Args:
      difference: {"difference", "low", "high"}: the arm in question minus what it is compared
        with. An interval that holds 0 tells nothing apart.
    """
    low, high = formats.number(at(difference, "low")), formats.number(at(difference, "high"))
    if low is None or high is None:
        return "not measured"
    if high < 0:
        return "better"
    return "worse" if low > 0 else "no difference told apart"


def verdict_html(word: Verdict) -> Html:
    classes = {"better": "better", "worse": "worse", "not measured": "none"}
    return tag("strong", word, class_=classes.get(word, "same"))


def interval(difference: Any) -> str:
    """The difference with its interval: `+0.031 [+0.010, +0.050]`."""
    value = formats.signed_text(at(difference, "difference"))
    low = formats.signed_text(at(difference, "low"))
    high = formats.signed_text(at(difference, "high"))
    if value is None:
        return formats.NOT_MEASURED
    return f"{value} [{low}, {high}]" if low and high else f"{value} (no interval)"


def movement(values: list[float]) -> str:
    """The verb of a row of figures where lower is better."""
    pairs = list(itertools.pairwise(values))
    if pairs and all(b < a for a, b in pairs):
        return "fell from"
    if pairs and all(b > a for a, b in pairs):
        return "rose from"
    return "went from" if pairs else "stood at"


def trained_phases(report: dict[str, Any]) -> dict[str, Any]:
    """The phases that have been trained, in order: a run that goes on lists the others empty."""
    phases = mapping(report.get("phases"))
    return {name: p for name, p in phases.items() if at(p, "tokens") is not None}


def lead(report: dict[str, Any]) -> Html:
    """The headline paragraph."""
    phases = trained_phases(report)
    return join([_what_ran(report, phases), " ", _how_it_went(report, phases)])


def _what_ran(report: dict[str, Any], phases: dict[str, Any]) -> Html:
    parameters = formats.count_text(at(report, "model", "parameters"))
    tokens = [formats.number(at(p, "tokens")) for p in phases.values()]
    total = formats.count_text(sum(t for t in tokens if t is not None))
    subject = f"A {parameters}-parameter code model" if parameters else "A code model"
    if not phases:
        return join([subject, " was to be trained; no phase has finished yet."])
    names = " → ".join(phases)
    plural = "s" if len(phases) > 1 else ""
    phrase = f" read {total} tokens in {in_words(len(phases))} phase{plural} ({names})"
    kept = formats.count_text(at(report, "corpus", "kept_documents"))
    of_what = f", taken from {kept} source files that passed every check" if kept else ""
    seconds = total_seconds(report)
    so_far = "So far all" if report.get("status") == "partial" else "All"
    took = f" {so_far} steps took {formats.duration_text(seconds)}." if seconds else ""
    return join([tag("strong", subject), phrase, of_what, ".", took])


def _known_bits(phases: dict[str, Any], *keys: str) -> list[float]:
    values = (formats.number(at(p, *keys)) for p in phases.values())
    return [value for value in values if value is not None]


def _path(values: list[float]) -> Html:
    path = " to ".join(formats.bits_text(v) or "" for v in values)
    return tag("strong", f"{movement(values)} {path}")


def _how_it_went(report: dict[str, Any], phases: dict[str, Any]) -> Html:
    known = _known_bits(phases, "heldout_bits_per_byte", "all")
    if not known:
        return Html("Bits per byte on held-out code: not measured.") if phases else Html("")
    solutions = _known_bits(phases, "solutions_bits_per_byte")
    parts: list[object] = ["Bits per byte (lower is better) "]
    if solutions:
        parts += [_path(solutions), " on solutions of small problems, and "]
    parts += [_path(known), " on repositories it has never seen"]
    baseline = formats.number(at(report, "baseline_bits_per_byte", "all"))
    order = at(report, "baseline", "order")
    if baseline is None:
        parts.append("; the n-gram yardstick was not measured.")
        return join(parts)
    gap = round(known[-1], 3) - round(baseline, 3)
    name = f"a byte {order}-gram" if order else "a byte n-gram"
    parts.append(f"; {name} trained on the same bytes reaches {formats.bits_text(baseline)}, so ")
    if abs(gap) < 5e-4:
        parts.append("the model ends level with it.")
    else:
        word: Verdict = "better" if gap < 0 else "worse"
        parts += [f"the model ends {abs(gap):.3f} ", verdict_html(word), " than it."]
    return join(parts)


def findings(report: dict[str, Any]) -> list[Html]:
    """The sentences below the headline: selection, problems, synthesis."""
    return [f for f in (_control(report), _problems(report), _synthesis(report)) if f]


def _control(report: dict[str, Any]) -> Html | None:
    control = mapping(report.get("control"))
    if not control:
        return None
    name = control.get("of") or "the phase"
    parts: list[object] = [
        tag("b", "Does choosing the data help? "),
        f"Phase “{name}” against the same phase on randomly drawn data, in bits per byte: ",
    ]
    for i, (key, where) in enumerate(
        (("heldout", "held-out code"), ("solutions", "solutions of the problems"))
    ):
        difference = at(control, "difference", key)
        word = verdict(difference)
        parts.append("; " if i else "")
        parts += [verdict_html(word), f" on {where}"]
        if word != "not measured":
            parts.append(f" ({interval(difference)})")
    parts.append(". Below 0 means that chosen data won; brackets are the bootstrap interval.")
    return join(parts)


def _problems(report: dict[str, Any]) -> Html | None:
    phases = trained_phases(report)
    if not phases:
        return None
    last_name, last = list(phases.items())[-1]
    score = at(last, "pass_at_1")
    start = tag("b", "Can it solve problems? ")
    if at(score, "passed") is None:
        reason = at(score, "reason")
        why = f": {reason}" if reason else ""
        return join([start, f"pass@1 after “{last_name}” was not run{why}."])
    passed = formats.of(at(score, "passed"), at(score, "total"))
    parts: list[object] = [start, f"It solves {passed} problems at the first try"]
    parameters = formats.number(at(report, "model", "parameters"))
    if at(score, "passed") == 0 and parameters is not None and parameters < SMALL_PARAMETERS:
        parts.append(", which is what to expect of a model this small")
    parts.append(". ")
    references, mutants = at(last, "references"), at(last, "mutants")
    if at(references, "passed") is None or at(mutants, "failed") is None:
        parts.append("The check of the harness itself was not measured.")
    else:
        sound = harness_is_sound(last)
        parts += [
            f"In the same sandbox {formats.of(at(references, 'passed'), at(references, 'total'))} "
            f"references pass and {formats.of(at(mutants, 'failed'), at(mutants, 'total'))} broken "
            "programs fail: the figure ",
            tag("strong", "can be trusted", class_="better")
            if sound
            else tag("strong", "cannot be trusted", class_="worse"),
            ".",
        ]
    return join(parts)


def harness_is_sound(phase: Any) -> bool | None:
    """Whether all references passed and all mutants failed; None where that is not known."""
    references, mutants = at(phase, "references"), at(phase, "mutants")
    figures = [
        formats.number(x)
        for x in (
            at(references, "passed"),
            at(references, "total"),
            at(mutants, "failed"),
            at(mutants, "total"),
        )
    ]
    if any(f is None for f in figures):
        return None
    return figures[0] == figures[1] and figures[2] == figures[3] and bool(figures[1])


def _synthesis(report: dict[str, Any]) -> Html | None:
    synthesis = mapping(report.get("synthesis"))
    if formats.number(synthesis.get("requests")) is None:
        return None
    kept = formats.of(synthesis.get("kept", synthesis.get("accepted")), synthesis.get("requests"))
    share = formats.percent_text(synthesis.get("yield"))
    tokens = formats.count_text(at(synthesis, "tokens", "kept"))
    text = f"{kept} synthetic documents were kept" + (f" ({share})" if share else "")
    text += f", {tokens} tokens of new text." if tokens else "."
    differs = _differences(mapping(synthesis.get("comparison")))
    return join([tag("b", "Was the synthetic data usable? "), text, differs])


# Metric -> how a document with more, and with less of it is called.
_MORE_AND_LESS = {
    "tokens": ("longer", "shorter"),
    "documentation": ("more documented", "less documented"),
    "natural_language": ("wordier", "less wordy"),
    "functions": ("of more functions", "of fewer functions"),
    "imports": ("of more imports", "of fewer imports"),
    "score": ("scored higher", "scored lower"),
}


def _differences(comparison: dict[str, Any]) -> str:
    """What the intervals tell apart from selected files, in words."""
    differences = mapping(comparison.get("differences"))
    sampled = formats.number(at(comparison, "sides", "synthetic", "sampled"))
    if not differences or sampled is None or sampled < MIN_COMPARED:
        return ""
    words = []
    for metric, (more, less) in _MORE_AND_LESS.items():
        low = formats.number(at(differences, metric, "low"))
        high = formats.number(at(differences, metric, "high"))
        if low is not None and high is not None and (low > 0 or high < 0):
            words.append(more if low > 0 else less)
    told = ", ".join(words) or "no different by what was measured"
    return f" Against selected files they are, in the mean, {told}."


def total_seconds(report: dict[str, Any]) -> float | None:
    """The sum of the steps' seconds, or None where no step was timed."""
    known = [s for s in mapping(report.get("seconds")).values() if formats.is_number(s)]
    return sum(known) if known else None


def schedule_in_words(schedule: Any) -> str | None:
    """`40 steps of warm-up to 0.002, then cosine to 0.0002`."""
    kind, peak = at(schedule, "kind"), formats.decimal_text(at(schedule, "peak"))
    if kind is None or peak is None:
        return None
    warmup = formats.number(at(schedule, "warmup_steps"))
    start = f"{warmup:.0f} steps of warm-up to {peak}" if warmup else f"from {peak}"
    if kind == "constant":
        return f"{start}, then constant"
    final = formats.decimal_text(at(schedule, "final"))
    return f"{start}, then {kind}" + (f" to {final}" if final else "")


def mixture_in_words(mixture: Any) -> str | None:
    """`best: 320 sequences, seen 4 times; random: ...`, a shortfall named."""
    texts = []
    for part in sequence(mixture):
        text = f"{at(part, 'selection') or '?'}"
        num = formats.count_text(at(part, "num_sequences"))
        text += f": {num} sequences" if num else ""
        epochs = formats.number(at(part, "epochs"))
        if epochs is not None:
            text += ", seen once" if epochs == 1 else f", seen {epochs:.3g} times"
        shortfall = formats.number(at(part, "shortfall"))
        text += f", {formats.count_text(shortfall)} short" if shortfall else ""
        texts.append(text)
    return "; ".join(texts) or None
