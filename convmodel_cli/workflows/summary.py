"""What the page of a run shows: the run's history and record, put into words, figures and drawings."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from convmodel_cli.workflows.charts import MOST_POINTS, Chart, draw, spread
from convmodel_cli.workflows.history import Fields, History, number

_MOST_ROWS = 60
_MOST_REPEATS = 20
_STOPPED = {
    "patience": "stopped early: the evaluations no longer got better",
    "max-time": "stopped early: its time was over",
}


def figure(value: object, shape: str = ",.0f") -> str:
    """A number in this shape, or a dash for what is none."""
    known = number(value)
    return "–" if known is None else format(known, shape)


def summarize(history: History, record: Fields, broke_off: str) -> Fields:
    """Everything the template shows. Any part may be missing: the run may have only begun."""
    best = next((event for _, event in reversed(history.evaluations) if event.get("best") is True), {})
    run = {**record, **history.started, **history.latest, **history.finished}
    data = {**run, **_part(record, "data")}
    state = _state(history, broke_off)
    return {
        "name": Path(str(run.get("output") or run.get("model") or "")).name or "a run",
        "output": run.get("output") or run.get("model"),
        "base": run.get("base"),
        "state": state,
        "resumed": history.resumed,
        "now": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "headline": _headline(best, run),
        "figures": _figures(history, run, state[0] == "running"),
        "charts": _charts(history, best),
        "steps_per_point": math.ceil(len(history.steps) / MOST_POINTS),
        "best_step": best.get("step"),
        "evaluations": _rows(history.evaluations, best),
        "num_evaluations": len(history.evaluations),
        "talks": _talks(history, best),
        "num_samples": len(history.samples),
        "settings": _part(record, "settings"),
        "data": data,
        "sources": _texts(data.get("train")),
        "repeats": [(name, *found) for name in ("duplicates", "overlap") if (found := _repeats(_part(data, name)))[1]],
        "most_repeats": _MOST_REPEATS,
        "notes": history.notes,
        "versions": {name: record[name] for name in ("convmodel",) if name in record} | _part(record, "versions"),
    }


def _part(record: Fields, name: str) -> Fields:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []


def _repeats(found: Fields) -> tuple[float, list[Fields]]:
    """(how many there are, those that the record lists)"""
    listed = found.get("shown")
    rows = [repeat for repeat in listed if isinstance(repeat, dict)] if isinstance(listed, list) else []
    return number(found.get("count")) or len(rows), rows


def _state(history: History, broke_off: str) -> tuple[str, str]:
    """(what kind of state, the state in words)"""
    stopped = history.finished.get("stopped")
    if stopped == "done":
        return "done", "done"
    if stopped is not None:
        return "early", _STOPPED.get(str(stopped), f"stopped early: {stopped}")
    if broke_off:
        return "broken", f"broke off: {broke_off}"
    if not history.started:
        return "running", "not started yet"
    return "running", f"running, step {figure(history.latest.get('step', 0))} of {figure(history.started.get('steps'))}"


def _headline(best: Fields, run: Fields) -> list[tuple[str, str, str]]:
    """(what, figure, unit) of the best evaluation."""
    if not best:
        return []
    kind = "train" if number(best.get("valid_loss")) is None else "valid"
    loss = number(best.get(f"{kind}_loss"))
    steps = figure(run.get("steps"))
    return [
        (f"{kind} perplexity", figure(_perplexity(loss), ",.2f"), ""),
        (f"{kind} loss", figure(loss, ".4f"), "nats per token"),
        *([("bits per byte", figure(best["bits_per_byte"], ".3f"), "")] if number(best.get("bits_per_byte")) else []),
        ("best step", figure(best.get("step")), f"of {steps}"),
    ]


def _perplexity(loss: object) -> float | None:
    known = number(loss)
    return math.exp(known) if known is not None and known < 700 else None


def _figures(history: History, run: Fields, running: bool) -> list[tuple[str, str]]:
    """(what, how much), without what is not known."""
    peak = number(run.get("peak_memory_bytes")) or history.peak_memory_bytes
    rows = [
        ("tokens learned", figure(run.get("tokens_seen"))),
        ("time", _time(run.get("seconds"))),
        ("time left", _time(history.latest.get("seconds_left")) if running else ""),
        ("speed", _with_unit(run.get("tokens_per_second"), "tokens/s")),
        ("parameters", figure(run.get("parameters"))),
        ("peak memory", f"{peak / 1e9:.1f} GB" if peak else ""),
        ("device", _device(run)),
        ("portability", _portability(run)),
    ]
    return [(name, value) for name, value in rows if value not in ("", "–")]


def _time(seconds: object) -> str:
    known = number(seconds)
    return "" if known is None or not 0 <= known < 1e12 else str(timedelta(seconds=round(known)))


def _with_unit(value: object, unit: str) -> str:
    return "" if number(value) is None else f"{figure(value)} {unit}"


def _device(run: Fields) -> str:
    threads = f"{figure(run['threads'])} threads" if run.get("device") == "cpu" and "threads" in run else None
    return ", ".join(str(part) for part in (run.get("device"), threads, run.get("precision")) if part)


def _portability(run: Fields) -> str:
    ppl = _part(run, "portability")
    here, elsewhere = (figure(ppl.get(name), ",.2f") for name in ("with_speaker_ids", "without_speaker_ids"))
    return f"perplexity {here} here, {elsewhere} in tools that pass no speaker ids" if ppl else ""


def _charts(history: History, best: Fields) -> list[Chart]:
    def course(name: str) -> list[tuple[float, float]]:
        points = [(step, number(event.get(name))) for step, event in history.evaluations]
        return [(step, value) for step, value in points if value is not None]

    losses = [(step, loss) for step, loss, _ in history.steps if loss is not None]
    rates = [(step, rate) for step, _, rate in history.steps if rate is not None]
    mark = number(best.get("step"))
    dotted = {"train": course("train_loss"), "valid": course("valid_loss")}
    drawn = [
        draw("loss in nats per token", 320, {"step": losses}, dotted, mark),
        draw("learning rate", 120, {"rate": rates}, {}, from_zero=True),
    ]
    return [chart for chart in drawn if chart]


def _rows(evaluations: list[tuple[float, Fields]], best: Fields) -> list[Fields]:
    chosen = spread([event for _, event in evaluations], _MOST_ROWS)
    if best and best not in chosen:
        chosen = sorted([*chosen, best], key=lambda event: number(event.get("step")) or 0)
    return [{**event, "ppl": _perplexity(event.get("valid_loss")), "best": event is best} for event in chosen]


def _talks(history: History, best: Fields) -> list[tuple[list[str], list[Fields]]]:
    """(context, what was answered to it, in the order of the steps)"""
    samples = [{**event, "best": bool(best) and event["step"] == best["step"]} for _, event in history.samples]
    rows = spread(samples, _MOST_ROWS)
    last = {**_part(history.finished, "sample"), "best": True}
    if "response" in last and not any(row["best"] and row.get("response") == last["response"] for row in rows):
        rows.append(last)
    return [(context, list(group)) for context, group in groupby(rows, lambda row: _texts(row.get("context")))]
