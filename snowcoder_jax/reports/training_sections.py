"""The parts of the page about the model: training, bits per byte, problems, times, stand-ins."""

from __future__ import annotations

from typing import Any

from snowcoder_jax.reports import formats, plots, story, training_account, training_plots
from snowcoder_jax.reports.highlight import code_block
from snowcoder_jax.reports.markup import (
    Html,
    at,
    bar,
    details,
    join,
    mapping,
    sequence,
    table,
    tag,
)


def phases_with_control(report: dict[str, Any]) -> list[tuple[str, Any, bool]]:
    """(name, figures, is it the control arm) in order; the control right after what it mirrors."""
    control = mapping(report.get("control"))
    result: list[tuple[str, Any, bool]] = []
    for name, phase in mapping(report.get("phases")).items():
        result.append((name, phase, False))
        if control and control.get("of") == name:
            result.append((str(control.get("name") or "control"), control, True))
    return result


def training(report: dict[str, Any]) -> list[object]:
    """Loss, gradient norm and learning rate in one picture; what each phase did, took and read."""
    picture = training_plots.training_curves(_curves(report))
    content: list[object] = [
        picture or tag("p", formats.missing("no training steps were recorded")),
        tag(
            "p",
            "The phases stand side by side in the order they ran, each on its own scale of steps. "
            "Where a phase has many steps a point is the mean of neighbours, the band their range.",
            class_="note",
        )
        if picture
        else None,
    ]
    columns = phases_with_control(report)
    if columns:
        content.append(_phase_table(columns))
    content += training_account.where_time_went(report, columns)
    content += training_account.what_was_read(columns)
    return content


def _curves(report: dict[str, Any]) -> list[training_plots.Curve]:
    control = mapping(report.get("control"))
    points: dict[str, list[tuple[float, float, float, float]]] = {}
    norms: dict[str, list[tuple[float, float]]] = {}
    skipped: dict[str, list[float]] = {}
    num_skipped: dict[str, float] = {}
    for point in sequence(report.get("curve")):
        _note_gradient(point, norms, skipped, num_skipped)
        row = [
            formats.number(at(point, k)) for k in ("global_step", "step", "loss", "learning_rate")
        ]
        if None not in row and at(point, "phase") is not None:
            points.setdefault(str(at(point, "phase")), []).append(tuple(row))  # type: ignore[arg-type]
    control_rows = sorted(points.pop(str(control.get("name")), []))
    # A phase that is still being trained has points, but no figures yet.
    order = list(dict.fromkeys([*mapping(report.get("phases")), *points]))
    curves = []
    for name in sorted(points, key=order.index):
        rows = sorted(points[name])
        beside = control_rows if control.get("of") == name else []
        # The arm ran the same steps from the same start: it is drawn over them.
        offset = rows[0][0] - rows[0][1]
        curves.append(
            training_plots.Curve(
                name=name,
                series=order.index(name),
                steps=[r[0] for r in rows],
                losses=[r[2] for r in rows],
                learning_rates=[r[3] for r in rows],
                control_steps=[offset + r[1] for r in beside],
                control_losses=[r[2] for r in beside],
                control_name=str(control.get("name") or ""),
                grad_steps=[step for step, _ in sorted(norms.get(name, []))],
                grad_norms=[norm for _, norm in sorted(norms.get(name, []))],
                skipped_steps=skipped.get(name, []),
            )
        )
    return curves


def _note_gradient(
    point: Any,
    norms: dict[str, list[tuple[float, float]]],
    skipped: dict[str, list[float]],
    num_skipped: dict[str, float],
) -> None:
    """Add a step's gradient norm, or that its update was skipped: then the count has risen."""
    phase, step = str(at(point, "phase")), formats.number(at(point, "global_step"))
    norm, count = formats.number(at(point, "grad_norm")), formats.number(at(point, "num_skipped"))
    if step is None:
        return
    if norm is not None:
        norms.setdefault(phase, []).append((step, norm))
    if count is not None and count > num_skipped.get(phase, 0):
        skipped.setdefault(phase, []).append(step)
        num_skipped[phase] = count


def _phase_table(columns: list[tuple[str, Any, bool]]) -> Html:
    def row(label: str, cell: Any) -> list[object]:
        return [label, *(cell(phase) for _, phase, _ in columns)]

    def plain(text: str | None) -> Html:
        return formats.text(text)

    rows = [
        row("starts from", lambda p: at(p, "starts_from") or "fresh weights"),
        row("tokens read", lambda p: formats.count(at(p, "tokens"))),
        row("different tokens", lambda p: formats.count(at(p, "unique_tokens"))),
        row("data", lambda p: plain(story.mixture_in_words(at(p, "mixture")))),
        row("learning rate", lambda p: plain(story.schedule_in_words(at(p, "schedule")))),
        row("steps", lambda p: formats.count(at(p, "steps"))),
        row("time", lambda p: formats.duration(at(p, "seconds"))),
        row("tokens a second", lambda p: formats.count(at(p, "tokens_per_second"))),
        row("MFU, causal attention", lambda p: _utilization(p, "mfu_causal")),
        row("MFU, full attention", lambda p: _utilization(p, "mfu_full")),
        row("waiting for data", lambda p: formats.percent(at(p, "data_wait_share"))),
        row("until the first step", lambda p: formats.duration(at(p, "seconds_to_first_step"))),
        row("machine", lambda p: plain(_machines(p))),
        row("attempts", lambda p: formats.count(at(p, "account", "num_attempts"))),
        row("last loss (nats a token)", lambda p: formats.bits(at(p, "final_loss"))),
        row("skipped updates", lambda p: formats.count(at(p, "skipped_updates"))),
    ]
    header = ["", *(_column_name(name, control) for name, _, control in columns)]
    return table(header, rows, class_="by-phase")


def _utilization(phase: Any, convention: str) -> Html:
    share = at(phase, convention)
    return formats.missing("peak not known") if share is None else formats.percent(share)


def _machines(phase: Any) -> str | None:
    machines = [str(m) for m in sequence(at(phase, "account", "machines")) if m is not None]
    return ", then ".join(machines) or None


def _column_name(name: str, is_control: bool) -> object:
    return join([name, " ", tag("small", "control arm")]) if is_control else name


def bits_per_byte(report: dict[str, Any]) -> list[object]:
    """The picture by language and phase, the same as a table, and the control arm's verdict."""
    columns = phases_with_control(report)
    languages = _languages(report, columns)
    order = at(report, "baseline", "order")
    baseline_name = f"byte {order}-gram" if order else "byte n-gram"
    control = next(((name, p) for name, p, is_control in columns if is_control), None)
    series = [name for name, _, is_control in columns if not is_control]
    rows = [
        plots.DotRow(
            label=_row_name(language),
            values={
                name: formats.number(_bits(phase, language))
                for name, phase, is_control in columns
                if not is_control
            },
            baseline=formats.number(at(report, "baseline_bits_per_byte", language)),
            control=formats.number(_bits(control[1], language)) if control else None,
        )
        for language in languages
    ]
    picture = plots.bits_per_byte(
        rows, series, control_name=control[0] if control else "", baseline_name=baseline_name
    )
    lines = []
    for language in languages:
        cells = [_bits_cell(report, phase, language) for _, phase, _ in columns]
        held = next((b for _, p, _ in columns if (b := at(p, "heldout_bytes", language))), None)
        size = formats.size(held) if language != "solutions" else ""
        yardstick = at(report, "baseline_bits_per_byte", language)
        bytes_known = held if yardstick is None else None
        baseline_cell = _value_or_reason(report, yardstick, bytes_known)
        lines.append([_row_name(language), *cells, baseline_cell, size])
    header = [
        "",
        *(_column_name(name, is_control) for name, _, is_control in columns),
        baseline_name,
        "held-out size",
    ]
    numeric = tuple(range(1, len(header)))
    trained = formats.size_text(at(report, "baseline", "trained_bytes"))
    seconds = formats.duration_text(at(report, "baseline", "seconds"))
    trained_text = f" It was trained on {trained} in {seconds}." if trained and seconds else ""
    return [
        tag(
            "p",
            "How many bits the model needs to write down one byte of code it has not seen: lower "
            "is better. The upright bars are the yardstick, a Witten-Bell n-gram over bytes "
            f"trained on exactly the bytes that the model saw.{trained_text}",
        ),
        picture,
        table(header, lines, numeric=numeric),
        _control_table(report),
    ]


def _bits(phase: Any, language: str) -> Any:
    if language == "solutions":
        return at(phase, "solutions_bits_per_byte")
    return at(phase, "heldout_bits_per_byte", language)


def _row_name(language: str) -> str:
    names = {"all": "all held-out code", "solutions": "solutions of the problems"}
    return names.get(language, language)


def _languages(report: dict[str, Any], columns: list[tuple[str, Any, bool]]) -> list[str]:
    """`all`, then the languages by held-out bytes, then the problems' solutions."""
    sizes: dict[str, float] = {}
    for _, phase, _ in columns:
        for name in mapping(at(phase, "heldout_bits_per_byte")):
            held = formats.number(at(phase, "heldout_bytes", name))
            sizes[name] = max(held or 0.0, sizes.get(name, 0.0))
    sizes.pop("all", None)
    ordered = sorted(sizes, key=lambda name: (-sizes[name], name))
    return ["all", *ordered, "solutions"] if columns else []


def _bits_cell(report: dict[str, Any], phase: Any, language: str) -> Html:
    held = at(phase, "heldout_bytes", language) if language != "solutions" else None
    return _value_or_reason(report, _bits(phase, language), held)


def _value_or_reason(report: dict[str, Any], value: Any, held_bytes: Any) -> Html:
    if value is not None:
        return formats.bits(value)
    minimum = (formats.size_text(report.get("min_language_bytes")) or "").replace(".0 ", " ")
    if formats.number(held_bytes) is None:
        return formats.missing()
    return formats.missing(f"under {minimum}" if minimum else "too few bytes")


def _control_table(report: dict[str, Any]) -> Html | None:
    control = mapping(report.get("control"))
    if not control:
        return None
    rows = []
    for key, where in (("heldout", "held-out code"), ("solutions", "solutions of the problems")):
        difference = at(control, "difference", key)
        word = story.verdict(difference)
        rows.append([where, story.interval(difference), story.verdict_html(word)])
    caption = (
        f"“{control.get('of') or 'the phase'}” minus “{control.get('name') or 'control'}”: same "
        "start, tokens and schedule, but data drawn at random. In bits per byte with the bootstrap "
        "interval; below 0 the chosen data won."
    )
    return table(["", "difference", "chosen data is"], rows, caption=caption)


def problems(report: dict[str, Any]) -> list[object]:
    """pass@1 by phase, with references and mutants that went the same way."""
    columns = phases_with_control(report)
    rows = []
    samples: list[object] = []
    for name, phase, is_control in columns:
        score = at(phase, "pass_at_1")
        passed = at(score, "passed")
        reason = at(score, "reason")
        if passed is not None:
            cell: object = formats.of(passed, at(score, "total"))
        else:
            status = at(score, "status") or "not run"
            cell = formats.missing(f"{status}: {reason}" if reason else formats.NOT_MEASURED)
        rows.append(
            [
                _column_name(name, is_control),
                cell,
                _check(at(phase, "references"), "passed"),
                _check(at(phase, "mutants"), "failed"),
            ]
        )
        written = [
            details(
                f"{at(sample, 'name') or '?'} — {at(sample, 'outcome') or '?'}",
                code_block(at(sample, "completion"), "Python"),
            )
            for sample in sequence(at(score, "samples"))
        ]
        if written:
            samples.append(details(f"after “{name}”: {len(written)} completions", *written))
    note = (
        "Greedy decoding, one try a problem. The references (all must pass) and the broken "
        "programs (all must fail) go through the same sandbox: they show that the figure means "
        "something, also where it is 0."
    )
    header = ["", "solved by the model", "references that pass", "broken programs that fail"]
    return [
        tag("p", note),
        table(header, rows) if rows else tag("p", formats.missing()),
        tag("h3", "What the model wrote") if samples else None,
        *samples,
    ]


def _check(counts: Any, key: str) -> object:
    right, total = formats.number(at(counts, key)), formats.number(at(counts, "total"))
    if right is None or total is None:
        return formats.missing()
    good = right == total and total > 0
    mark = tag("span", "✓" if good else "✗", class_="better" if good else "worse")
    return join([mark, " ", formats.of(right, total)])


def times(report: dict[str, Any]) -> list[object]:
    """Seconds and peak memory of each step, as bars, in the order they ran."""
    seconds, memory = mapping(report.get("seconds")), mapping(report.get("memory"))
    steps = list(dict.fromkeys([*seconds, *memory]))
    if not steps:
        return [tag("p", formats.missing())]
    longest = max((formats.number(s) or 0.0 for s in seconds.values()), default=0.0)
    largest = max((formats.number(m) or 0.0 for m in memory.values()), default=0.0)
    rows = [
        [
            step,
            formats.duration(seconds.get(step)),
            bar(formats.share(seconds.get(step), longest)),
            formats.size(memory.get(step)),
            bar(formats.share(memory.get(step), largest), "second"),
        ]
        for step in steps
    ]
    total = story.total_seconds(report)
    peak = report.get("peak_memory_bytes")
    return [
        tag(
            "p",
            "In all ",
            formats.duration(total),
            ", at most ",
            formats.size(peak),
            " of memory.",
        ),
        table(["step", "time", "", "peak memory", ""], rows, numeric=(1, 3), class_="bars"),
    ]


def stand_ins(report: dict[str, Any]) -> list[object]:
    rows = [
        [at(s, "what") or "?", at(s, "here") or "?", at(s, "full") or "?"]
        for s in sequence(report.get("stand_ins"))
    ]
    if not rows:
        return [tag("p", formats.missing("not listed"))]
    return [table(["what", "in this run", "in the full recipe"], rows, class_="prose")]


def environment(report: dict[str, Any]) -> list[object]:
    rows: list[list[object]] = [
        ["recipe", formats.text(report.get("recipe_path"))],
        ["made", formats.text(report.get("created"))],
    ]
    for key, value in mapping(report.get("machine")).items():
        known = [str(v) for v in sequence(value) if v is not None]
        plain = None if isinstance(value, list) else value
        rows.append([key.replace("_", " "), formats.text(", ".join(known) or plain)])
    for key, value in mapping(report.get("model")).items():
        rows.append([f"model {key.replace('_', ' ')}", formats.count(value)])
    return [table(["", ""], rows, class_="plain")]
