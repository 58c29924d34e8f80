"""Config files and where values come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from conftest import TALKS, Convmodel
from convmodel_cli.workflows.resume import identity
from helpers import made_up_conversations, weights_digest, write_conversations, write_jsonl

KINDS = {
    "run.yaml": "epochs: 3\nlearning-rate: 1e-4\noutput: out\n",
    "run.toml": 'epochs = 3\nlearning_rate = 1e-4\noutput = "out"\n',
    "run.json": '{"epochs": 3, "learning_rate": 0.0001, "output": "out"}',
    "convmodel.json": '{"settings": {"epochs": 3, "learning_rate": 0.0001, "output": "out", "max_steps": null}}',
}


def shown(convmodel: Convmodel, *arguments: str) -> tuple[dict[str, object], dict[str, str]]:
    """(values, sources) of --print-config"""
    outcome = convmodel(*arguments, "--print-config")
    assert outcome.code == 0, outcome.err
    sources = {line.split(":")[0]: line.rsplit("# ", 1)[1] for line in outcome.out.splitlines()}
    return yaml.safe_load(outcome.out), sources


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_settings(convmodel: Convmodel, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(KINDS[name])
    values, sources = shown(convmodel, "fit", "--config", name)
    assert (values["epochs"], values["learning_rate"], values["output"]) == (3, 1e-4, "out")
    assert sources["epochs"] == sources["output"] == "config file"
    assert sources["warmup"] == "default"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    convmodel: Convmodel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text("epochs: 2\nbatch_size: 2\npatience: 2\n")
    monkeypatch.setenv("CONVMODEL_FIT_EPOCHS", "3")
    monkeypatch.setenv("CONVMODEL_FIT_BATCH_SIZE", "3")
    values, sources = shown(convmodel, "fit", "--config", "run.yaml", "--epochs", "4")
    assert (values["epochs"], values["batch_size"], values["patience"]) == (4, 3, 2)
    assert [sources[name] for name in ("epochs", "batch_size", "patience")] == [
        "command line",
        "environment",
        "config file",
    ]


@pytest.mark.parametrize(
    ("command", "variable", "hint"),
    [
        ("fit", "CONVMODEL_FIT_EPOCH", "did you mean CONVMODEL_FIT_EPOCHS?"),
        ("fit", "CONVMODEL_FIT_LEARNING-RATE", "did you mean CONVMODEL_FIT_LEARNING_RATE?"),
        ("fit", "CONVMODEL_FIT_TRAIN", "give it on the command line or in a config file"),
        ("eval", "CONVMODEL_EVAL_TEMPERATURE", "the help lists the options"),
        ("generate", "CONVMODEL_GENERATE_STOP_WORD", "give it on the command line or in a config file"),
        ("generate", "CONVMODEL_GENERATE_", "the help lists the options"),
        ("chat", "CONVMODEL_CHAT_TOPP", "did you mean CONVMODEL_CHAT_TOP_P?"),
    ],
)
def test_a_variable_of_the_command_that_nothing_reads_is_refused_with_the_nearest(
    convmodel: Convmodel, monkeypatch: pytest.MonkeyPatch, command: str, variable: str, hint: str
) -> None:
    monkeypatch.setenv(variable, "3")
    outcome = convmodel(command, "--print-config")
    assert outcome.code == 2
    assert f"error: {variable}: " in outcome.err and hint in outcome.err
    for other in {"fit", "eval", "generate", "chat"} - {command}:
        assert convmodel(other, "--print-config").code == 0


def test_variables_that_are_no_settings_of_a_command_are_free(
    convmodel: Convmodel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (
        "CONVMODEL_TEST_DATA",
        "CONVMODEL_FITNESS",
        "CONVMODEL_FIT",
        "_CONVMODEL_FIT_X",
        "convmodel_fit_x",
    ):
        monkeypatch.setenv(variable, "3")
    monkeypatch.setenv("CONVMODEL_MODEL", "bot")
    assert convmodel("fit", "--print-config").code == 0
    _, sources = shown(convmodel, "eval")
    assert sources["model"] == "environment"


@pytest.mark.parametrize("command", ["fit", "eval", "generate", "chat"])
def test_what_is_printed_is_itself_a_config(convmodel: Convmodel, tmp_path: Path, command: str) -> None:
    options = ["--seed", "7", "--color", "never"]
    (tmp_path / "printed.yaml").write_text(convmodel(command, *options, "--print-config").out)
    first, _ = shown(convmodel, command, *options)
    again, sources = shown(convmodel, command, "--config", "printed.yaml")
    assert again == first
    assert sources["seed"] == "config file"


def test_a_config_alone_is_a_run_and_its_record_repeats_it(convmodel: Convmodel, tmp_path: Path) -> None:
    first, second = write_jsonl(tmp_path / "a.jsonl", TALKS[:3]), write_jsonl(tmp_path / "b.jsonl", TALKS[3:])
    run = {"train": [first, second], "valid": first, "output": "out", "epochs": 1, "vocab_size": 320, "seed": 5}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**run, "precision": "fp32"}))
    assert convmodel("fit", "--config", "run.yaml").out == "out\n"
    again = ["fit", "--config", "out/convmodel.json", "-o", "again"]
    assert convmodel(*again).code == 0
    assert weights_digest(tmp_path / "out") == weights_digest(tmp_path / "again")
    record = json.loads((tmp_path / "out" / "convmodel.json").read_text())
    assert record["data"]["train"] == [first, second]


def test_the_record_of_a_run_repeats_what_decided_its_data_and_its_machine(
    convmodel: Convmodel, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    write_conversations(data, made_up_conversations(60))
    data.write_text(data.read_text() + "not json\n")
    fit = ["fit", str(data), "--split", "60/20/20", "--skip-bad", "--precision", "fp32", "--threads", "1"]
    assert convmodel(*fit, "-o", "out", "--max-steps", "3", "--vocab-size", "320", "--device", "cpu").code == 0
    assert convmodel("fit", "--config", "out/convmodel.json", "-o", "again").code == 0
    one, other = (json.loads((tmp_path / name / "convmodel.json").read_text()) for name in ("out", "again"))
    assert one["data"] == other["data"] and one["data"]["train_conversations"] == 36
    assert one["settings"] == other["settings"]
    recorded = {"split": "60/20/20", "skip_bad": True, "precision": "fp32", "device": "cpu", "threads": 1}
    assert {name: one["settings"][name] for name in recorded} == recorded
    assert weights_digest(tmp_path / "out") == weights_digest(tmp_path / "again")
    assert (tmp_path / "out" / "test.jsonl").read_bytes() == (tmp_path / "again" / "test.jsonl").read_bytes()


def test_the_record_says_where_each_setting_came_from(
    convmodel: Convmodel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", TALKS)
    (tmp_path / "run.yaml").write_text("vocab_size: 300\nseed: 1\n")
    monkeypatch.setenv("CONVMODEL_FIT_BATCH_SIZE", "3")
    fit = ["fit", data, data, "-o", "out", "--config", "run.yaml", "--max-steps", "1", "--seed", "2"]
    assert convmodel(*fit).code == 0
    record = json.loads((tmp_path / "out" / "convmodel.json").read_text())
    assert record["sources"].keys() == record["settings"].keys()
    expected = {"max_steps": "command line", "seed": "command line", "vocab_size": "config file"}
    expected |= {"batch_size": "environment", "epochs": "default", "precision": "default", "skip_bad": "default"}
    assert {name: record["sources"][name] for name in expected} == expected
    values, sources = shown(convmodel, "fit", "--config", "out/convmodel.json")
    assert (values["seed"], sources["seed"], sources["batch_size"]) == (2, "config file", "environment")
    assert identity(record) == identity({**record, "sources": {}})
    assert not {"--split", "--skip-bad", "--sources"} & identity(record).keys()


def test_a_record_of_another_machine_is_refused_unless_the_command_line_says_where(
    convmodel: Convmodel, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", TALKS)
    fit = ["fit", data, data, "--max-steps", "1", "--vocab-size", "300", "-q"]
    assert convmodel(*fit, "-o", "out").code == 0
    record = json.loads((tmp_path / "out" / "convmodel.json").read_text())
    record["settings"] |= {"device": "mps", "precision": "fp32"}
    (tmp_path / "there.json").write_text(json.dumps(record))
    again = ["fit", "--config", "there.json", "-o", "again"]
    outcome = convmodel(*again)
    assert outcome.code == 2
    assert "--device: expected a device of this machine, got mps\nhint: this machine has" in outcome.err
    assert convmodel(*again, "--device", "auto").code == 0
    found = json.loads((tmp_path / "again" / "convmodel.json").read_text())
    assert found["settings"]["device"] != "auto"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.yaml", "epoch: 3", "there is no setting epoch\nhint: did you mean epochs?"),
        ("a.yaml", "epochs: [1, 2]", "a.yaml: epochs: expected a whole number, got a list"),
        ("a.yaml", "- 1", "expected names and values, got list"),
        ("a.yaml", "a: [", "expected a config file, got something else"),
        ("a.toml", "epochs 3", "expected a config file, got something else"),
        ("a.json", "{", "expected a config file, got something else"),
        ("a.ini", "x", "ending in .yaml, .toml or .json, got .ini"),
        ("a.yaml", "epochs: many", 'a.yaml: epochs: expected a whole number, got "many"'),
        ("a.yaml", "sample: 2024-01-01", "a.yaml: sample: expected text, got 2024-01-01"),
        ("a.yaml", "epochs: 0", "--epochs: expected at least 1, got 0"),
    ],
)
def test_a_bad_config_exits_2_and_says_why(
    convmodel: Convmodel, tmp_path: Path, name: str, content: str, expected: str
) -> None:
    (tmp_path / name).write_text(content)
    outcome = convmodel("fit", "--config", name)
    assert outcome.code == 2
    assert expected in outcome.err
    assert convmodel("fit", "--config", "missing.yaml").code == 2


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.yaml", "epochs: 1\nseed: 2\nepochs: 3\n", "a.yaml:3: expected each name once, got epochs twice"),
        ("a.yaml", "learning-rate: 1\nlearning_rate: 2\n", "a.yaml:2: expected each name once, got learning-rate and"),
        ("a.yaml", "settings: {epochs: 1,\n epochs: 2}\n", "a.yaml:2: expected each name once, got epochs twice"),
        ("a.json", '{"epochs": 1, "epochs": 2}', "a.json: expected each name once, got epochs twice"),
        ("a.json", '{"settings": {"epochs": 1, "epochs": 2}}', "a.json: expected each name once, got epochs twice"),
        (
            "a.json",
            '{"eval-every": 1, "eval_every": 2}',
            "a.json: expected each name once, got eval-every and eval_every",
        ),
        ("a.toml", "epochs = 1\nepochs = 2\n", "a.toml: expected a config file"),
        (
            "a.toml",
            "eval-every = 1\neval_every = 2\n",
            "a.toml: expected each name once, got eval-every and eval_every",
        ),
        (
            "a.yaml",
            "train: [a, b]\nmore_train: [c]\n",
            "a.yaml: train: expected one file beside more_train, got a list",
        ),
    ],
)
def test_a_setting_that_stands_twice_is_refused_with_its_name(
    convmodel: Convmodel, tmp_path: Path, name: str, content: str, expected: str
) -> None:
    (tmp_path / name).write_text(content)
    outcome = convmodel("fit", "--config", name, "--print-config")
    assert outcome.code == 2
    assert expected in outcome.err


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"data": [1]}, "data: expected names and values, got a list"),
        ({"data": {"train": 3}}, "train: expected text, got 3"),
        ({"data": {"train": [3]}}, "train: expected texts in the list, got 3"),
        ({"base": 3}, "base: expected text, got 3"),
        ({"settings": [1]}, "there is no setting settings"),
    ],
)
def test_a_damaged_record_is_refused_as_a_config(
    convmodel: Convmodel, tmp_path: Path, record: dict[str, object], expected: str
) -> None:
    (tmp_path / "convmodel.json").write_text(json.dumps({"settings": {}, **record}))
    outcome = convmodel("fit", "--config", "convmodel.json", "--print-config")
    assert outcome.code == 2
    assert f"convmodel.json: {expected}" in outcome.err


@pytest.mark.parametrize("name", ["deep.yaml", "deep.json"])
def test_brackets_without_end_are_no_config(convmodel: Convmodel, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[" * 3000 + "]" * 3000)
    outcome = convmodel("fit", "--config", name)
    assert outcome.code == 2 and "expected a config file, got something else" in outcome.err


def test_yaml_may_name_parts_and_use_them_again(convmodel: Convmodel, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("settings:\n  <<: [&a {epochs: 2, seed: 1}, *a]\n  epochs: 3\n")
    values, _ = shown(convmodel, "fit", "--config", "a.yaml")
    assert (values["epochs"], values["seed"]) == (3, 1)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("epochs = true", "epochs: expected a whole number, got true"),
        ("epochs = 3.7", "epochs: expected a whole number, got 3.7"),
        ("epochs = 3.0", "epochs: expected a whole number, got 3.0"),
        ('epochs = "3.7"', 'epochs: expected a whole number, got "3.7"'),
        ("learning_rate = true", "learning_rate: expected a number, got true"),
        ('learning-rate = "fast"', 'learning_rate: expected a number, got "fast"'),
        ("clip = false", "clip: expected a number, got false"),
        ("skip_bad = 1", "skip_bad: expected true or false, got 1"),
        ("resume = 0.0", "resume: expected true or false, got 0.0"),
        ('resume = "maybe"', 'resume: expected true or false, got "maybe"'),
        ("speaker_ids = true", "speaker_ids: expected one of mixed, on, off, got true"),
        ('speaker_ids = "none"', 'speaker_ids: expected one of mixed, on, off, got "none"'),
        ("precision = 32", "precision: expected one of auto, bf16, fp32, int8, got 32"),
        ("output = false", "output: expected text, got false"),
        ("sample = 1.10", "sample: expected text, got 1.1"),
        ("max_time = 90", "max_time: expected text, got 90\nhint: put it into quotes"),
        ('sample = ["a", "b"]', "sample: expected text, got a list"),
        ("train = true", "train: expected text, got true"),
        ('train = ["a", 7]', "train: expected texts in the list, got 7"),
        ("valid = [false]", "valid: expected texts in the list, got false"),
        ('more_train = "a"', 'more_train: expected a list of texts, got "a"'),
    ],
)
@pytest.mark.parametrize("kind", ["yaml", "toml", "json"])
def test_a_value_of_another_type_is_refused_and_never_made_to_fit(
    convmodel: Convmodel, tmp_path: Path, kind: str, written: str, expected: str
) -> None:
    name, _, value = written.partition(" = ")
    text = {"yaml": f"{name}: {value}", "toml": written, "json": f'{{"{name}": {value}}}'}[kind]
    (tmp_path / f"a.{kind}").write_text(text)
    outcome = convmodel("fit", "--config", f"a.{kind}", "--print-config")
    assert outcome.code == 2
    assert f"a.{kind}: {expected}" in outcome.err


def test_texts_of_a_list_are_texts(convmodel: Convmodel, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("stop_word: [on, 7]")
    outcome = convmodel("generate", "Hi", "--config", "a.yaml", "--print-config")
    assert outcome.code == 2
    assert "a.yaml: stop_word: expected texts in the list, got true\nhint: put it into quotes" in outcome.err


def test_a_number_may_be_written_as_text_and_a_switch_too(convmodel: Convmodel, tmp_path: Path) -> None:
    written = {"learning_rate": "1e-4", "epochs": "3", "clip": 2, "skip_bad": "yes", "valid": [], "threads": None}
    (tmp_path / "a.json").write_text(json.dumps(written))
    values, _ = shown(convmodel, "fit", "--config", "a.json")
    assert [values[name] for name in written] == [1e-4, 3, 2.0, True, None, None]


def test_the_models_own_sampling_settings_are_the_defaults_below_a_config_file(
    convmodel: Convmodel, tmp_path: Path
) -> None:
    folder = tmp_path / "bot"
    folder.mkdir()
    own = {"temperature": 0.3, "top_p": 0.5, "top_k": 7, "eos_token_id": 0, "max_new_tokens": 9, "min_p": None}
    (folder / "generation_config.json").write_text(json.dumps(own))
    (tmp_path / "run.yaml").write_text("top_p: 0.6\ntop_k: 8\n")
    for order in (["-m", "bot", "--config", "run.yaml"], ["--config", "run.yaml", "-m", "bot"]):
        outcome = convmodel("generate", "Hi", *order, "--top-k", "9", "--print-config")
        assert outcome.code == 0
        lines = outcome.out.splitlines()
        assert "temperature: 0.3  # model folder" in lines
        assert "max_new_tokens: 9  # model folder" in lines
        assert "top_p: 0.6  # config file" in lines
        assert "top_k: 9  # command line" in lines
        assert "min_p: 0.0  # default" in lines


def test_a_generation_config_that_makes_no_sense_is_named(convmodel: Convmodel, tmp_path: Path) -> None:
    folder = tmp_path / "bot"
    folder.mkdir()
    for content in ("{", "[]"):
        (folder / "generation_config.json").write_text(content)
        outcome = convmodel("chat", "-m", "bot")
        assert outcome.code == 4, content
        assert "bot/generation_config.json: expected" in outcome.err


def test_values_of_a_generation_config_that_mean_none_are_passed_over(convmodel: Convmodel, tmp_path: Path) -> None:
    folder = tmp_path / "bot"
    folder.mkdir()
    own = {"temperature": 0, "top_k": -1, "top_p": "most", "max_new_tokens": True, "min_p": 0.1}
    (folder / "generation_config.json").write_text(json.dumps({**own, "repetition_penalty": 1.5}))
    printed = convmodel("generate", "Hi", "-m", "bot", "--print-config").out
    assert "min_p: 0.1  # model folder" in printed
    assert printed.count("model folder") == 1


def test_a_model_in_the_home_of_nobody_is_a_usage_error(convmodel: Convmodel) -> None:
    for command in ("eval", "generate", "chat"):
        outcome = convmodel(command, "-m", "~no-such-user/model")
        assert outcome.code == 2
        assert "expected somebody's home, got ~no-such-user" in outcome.err


def test_what_stands_beside_settings_is_refused(convmodel: Convmodel, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("settings:\n  epochs: 3\nbatch_size: 99\n")
    outcome = convmodel("fit", "--config", "a.yaml", "--print-config")
    assert outcome.code == 2 and "a.yaml: batch_size stands beside settings, where it is not read" in outcome.err


@pytest.mark.parametrize("option", ["--epochs", "--max-steps", "--batch-size", "--patience", "--threads", "--seed"])
def test_numbers_beyond_all_measure_are_refused(convmodel: Convmodel, tmp_path: Path, option: str) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", TALKS)
    outcome = convmodel("fit", data, option, "9007199254740992")
    assert outcome.code == 2 and f"{option}: expected at most" in outcome.err
