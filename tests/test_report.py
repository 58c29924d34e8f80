"""report.html: what a run has said, on a page that nothing in it can steer."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from conftest import Convmodel
from convmodel_cli.errors import TrainingError
from convmodel_cli.events import Stepped
from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.charts import averaged, draw, spread, ticks
from convmodel_cli.workflows.fit import FitRequest, fit
from convmodel_cli.workflows.history import History
from convmodel_cli.workflows.report import write_report
from helpers import made_up_conversations, write_conversations

HOSTILE = "<script>alert(1)</script> & \x1b[31m \u202e [/x] \ud800 \u2028 \x9b"
WRITTEN_OUT = "<script>alert(1)</script> & \\x1b[31m \\u202e [/x] \\ud800 \\u2028 \\x9b"


class Page(HTMLParser):
    """The text of a page, its elements, and whether each that opens also closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source, self.words, self.tags = text, "", list[str]()
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words = f"{self.words} {data}"

    def holds(self, *sentences: str) -> bool:
        return all(" ".join(sentence.split()) in " ".join(self.words.split()) for sentence in sentences)


def stepped(step: int, loss: float | None = None, **more: object) -> dict[str, Any]:
    loss = 9 - step / 10 if loss is None else loss
    return {"event": "Stepped", "step": step, "steps": 60, "loss": loss, "learning_rate": 0.01, **more}


def evaluated(step: int, valid: float | None, best: bool = True, **more: object) -> dict[str, Any]:
    return {"event": "Evaluated", "step": step, "train_loss": 5.0, "valid_loss": valid, "best": best, **more}


def sampled(step: int, response: str, context: tuple[str, ...] = ("Hi!",)) -> dict[str, Any]:
    return {"event": "Sampled", "step": step, "context": context, "response": response}


def started(**more: object) -> dict[str, Any]:
    return {"event": "Started", "base": "new-tiny", "output": "out", "steps": 60, **more}


def page_of(folder: Path, *events: dict[str, Any], record: object = None, rest: str = "") -> Page:
    """The page of a run whose journal holds these events."""
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + rest)
    if record is not None:
        (folder / "convmodel.json").write_text(json.dumps(record))
    write_report(folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_a_run_leaves_a_page_with_its_figures_and_samples(convmodel: Convmodel, tmp_path: Path) -> None:
    data = write_conversations(tmp_path / "train.jsonl", made_up_conversations(40))
    options = ["--precision", "fp32", "--vocab-size", "320", "--epochs", "2", "--batch-size", "8", "--max-length", "64"]
    fitted = json.loads(convmodel("fit", data, "-o", "out", *options, "--json").out)
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.holds("out from new-tiny", "done", f"valid perplexity {fitted['valid']['ppl']:.2f}")
    assert page.holds(f"best: step {fitted['best_step']}", "learning_rate", "vocab_size 320", "torch")
    assert page.holds("38 conversations", "train.jsonl", "portability perplexity")
    assert {"svg", "polyline", "table"} <= set(page.tags)


def test_a_page_needs_nothing_from_outside_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, started(), stepped(1), stepped(2), evaluated(2, 4.0), sampled(2, "Hello"))
    assert not {"script", "link", "img", "iframe", "object", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in {"src", "href", "style"} or name.startswith("on")]
    assert "url(" not in page.source and "@import" not in page.source
    assert "default-src 'none'" in page.source


def test_hostile_text_is_shown_and_never_obeyed_wherever_it_stands(tmp_path: Path) -> None:
    repeat = {"where": HOSTILE, "first": HOSTILE, "exact": True}
    record = {
        "base": HOSTILE,
        "settings": {HOSTILE: HOSTILE, "a list": [HOSTILE]},
        "versions": {HOSTILE: HOSTILE},
        "data": {"train": [HOSTILE], "duplicates": {"count": 1, "shown": [repeat]}},
    }
    page = page_of(
        tmp_path,
        started(base=HOSTILE, output=HOSTILE, device=HOSTILE),
        {"event": "Note", "text": HOSTILE, "warning": True},
        sampled(0, HOSTILE, (HOSTILE, "Hi!")),
        {"event": "Finished", "stopped": HOSTILE, "sample": {"step": 0, "context": [HOSTILE], "response": HOSTILE}},
        record=record,
    )
    assert "script" not in page.tags
    assert page.words.count(WRITTEN_OUT) > 12
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", page.source)


def test_text_of_every_script_stays_as_it_is(tmp_path: Path) -> None:
    text = "من نمی\u200cدانم 🙂👍🏽 日本語 e\u0301"
    assert page_of(tmp_path, started(), sampled(0, text)).holds(text)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "not started yet"),
        ([started()], "running, step 0 of 60"),
        ([started(), stepped(7)], "running, step 7 of 60"),
        ([started(), {"event": "Finished", "stopped": "done"}], "done"),
        ([started(), {"event": "Finished", "stopped": "patience"}], "stopped early: the evaluations no longer got"),
        ([started(), {"event": "Finished", "stopped": "max-time"}], "stopped early: its time was over"),
        ([started(), {"event": "Finished", "stopped": "a reason to come"}], "stopped early: a reason to come"),
        ([started(), stepped(7), {"event": "Resumed", "step": 7}], "resumed"),
        ([started(), {"event": "Resumed"}, {"event": "Resumed"}], "resumed 2 times"),
    ],
)
def test_the_page_says_how_the_run_stands(tmp_path: Path, events: list[dict[str, Any]], state: str) -> None:
    assert page_of(tmp_path, *events).holds(state)


def test_a_folder_without_journal_and_record_has_a_page_too(tmp_path: Path) -> None:
    write_report(tmp_path)
    assert Page((tmp_path / "report.html").read_text(encoding="utf-8")).holds("not started yet")


def test_a_journal_with_cut_and_unknown_lines_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    events = [started(), {"event": "ToCome", "step": 3}, {"no": "event"}, stepped(1), stepped(2), evaluated(2, 4.0)]
    page = page_of(tmp_path, *events, record=[], rest='not json\n[1]\n\n{"event":"Stepped","step":3,"lo')
    assert page.holds("running, step 2 of 60", "valid loss 4.0000")


def test_values_of_a_wrong_kind_are_dashes(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        started(steps="many", parameters=[1], threads={}, device="cpu"),
        {"event": "Stepped", "step": "first"},
        {"event": "Stepped", "step": 1, "loss": None, "learning_rate": True, "memory_bytes": "much"},
        evaluated(1, None, train_loss=None),
        {"event": "Sampled", "step": 1, "context": 3, "response": None},
        {"event": "Finished", "stopped": "done", "seconds": 1e300, "sample": 3, "portability": [1]},
        record={
            "settings": 3,
            "data": {"train": "a", "overlap": [1], "duplicates": {"count": "a", "shown": [1, {}]}},
            "versions": None,
        },
    )
    assert page.holds("train loss –")
    assert "None" not in page.words


def test_without_valid_data_the_train_loss_is_the_figure(tmp_path: Path) -> None:
    page = page_of(tmp_path, started(), evaluated(0, None), stepped(1), evaluated(10, None, train_loss=2.0))
    assert page.holds("train perplexity 7.39", "train loss 2.0000")
    assert "valid loss" not in page.words.split("Evaluations")[0]


def points_of(page: Page) -> list[list[str]]:
    """The places of each line drawn on the page."""
    return [(value or "").split() for name, value in page.attributes if name == "points"]


def test_a_loss_that_is_no_number_is_left_out_of_the_curve(tmp_path: Path) -> None:
    broken = {**stepped(3), "loss": None}  # as JSON writes nan
    losses, rates = points_of(page_of(tmp_path, started(), stepped(1), stepped(2), broken, stepped(4)))
    assert (len(losses), len(rates)) == (3, 4)


def test_a_journal_that_grows_is_read_on_as_if_it_were_read_anew(tmp_path: Path) -> None:
    path, whole, piecewise = tmp_path / "events.jsonl", History(), History()
    lines = [started(), stepped(1), evaluated(1, 4.0), sampled(1, "a"), stepped(2), {"event": "Note", "text": "n"}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for end in range(0, len(text) + 1, 7):
        path.write_text(text[:end])
        piecewise.read_on(path)
    path.write_text(text)
    piecewise.read_on(path)
    whole.read_on(path)
    assert piecewise == whole


def test_a_long_run_keeps_its_page_short_and_its_best_on_it(tmp_path: Path) -> None:
    events = [started()]
    for step in range(1, 3001):
        events += [stepped(step, 5.0), evaluated(step, 4 + abs(step - 1234) / 1e4, step <= 1234), sampled(step, "yes")]
    page = page_of(tmp_path, *events)
    assert len(page.source) < 150_000
    assert page.holds("best: step 1,234", "1,234", "train, mean of 6 steps", "of 3,000")
    assert max(len(points) for points in points_of(page)) == 500


def test_the_page_is_kept_up_and_says_why_a_run_broke_off(tmp_path: Path) -> None:
    data = write_conversations(tmp_path / "train.jsonl", made_up_conversations(40))
    training = TrainingSettings(
        epochs=1, batch_size=4, vocab_size=320, learning_rate=1e30, clip=0, optimizer="adamw", eval_every=1
    )
    output = tmp_path / "out"
    pages = []
    with pytest.raises(TrainingError):
        for event in fit(FitRequest((data,), output=str(output)), RunSettings(), training, ComputeSettings()):
            if isinstance(event, Stepped):
                pages.append(Page((output / "report.html").read_text(encoding="utf-8")))
    assert pages[0].holds("running, step 0 of")
    last = Page((output / "report.html").read_text(encoding="utf-8"))
    assert last.holds("broke off:", "expected a finite loss") or last.holds("broke off:", "expected finite numbers")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (1.9, 8.4, [2, 4, 6, 8]), (0, 0.012, [0, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012])],
)
def test_ticks_are_round_numbers_within_the_limits(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 6) == pytest.approx(expected)


def test_thinning_keeps_the_mean_and_the_ends() -> None:
    points = [(float(step), float(step % 7)) for step in range(1, 5001)]
    thin = averaged(points)
    assert len(thin) == 500
    assert sum(value for _, value in thin) / 500 == pytest.approx(sum(value for _, value in points) / 5000)
    assert averaged(points[:500]) == points[:500]
    rows = list(range(1000))
    assert len(spread(rows, 60)) == 60 and (spread(rows, 60)[0], spread(rows, 60)[-1]) == (0, 999)


@pytest.mark.parametrize("values", [(3.0, 3.0), (0.0, 0.0), (1e299, -1e299), (1e-310, 0.0), (1e9, 1e9 + 1e-6)])
def test_any_two_values_can_be_drawn(values: tuple[float, float]) -> None:
    chart = draw("loss", 300, {"step": list(enumerate(values, 1))}, {})
    assert chart is not None
    places = [tuple(map(float, point.split(","))) for point in chart.lines[0].points.split()]
    assert all(chart.left <= x <= chart.right and chart.top <= y <= chart.bottom for x, y in places)


def test_one_step_is_no_curve() -> None:
    assert draw("loss", 300, {"step": [(1.0, 2.0)]}, {"valid": []}) is None
