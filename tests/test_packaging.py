"""What is built can be used: the sample is found from a wheel, a source archive and a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ("train.jsonl", "valid.jsonl", "test.jsonl", "probes.jsonl")
FIND = "from convmodel_cli.workflows.data import sample_file; print(sample_file('probes.jsonl'))"


def build(kind: str, source: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [made] = folder.iterdir()
    return made


def found_from(place: Path) -> Path:
    """Where a Python that imports the package from `place` finds the sample."""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", FIND], env=environment, cwd=place, capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def test_the_wheel_holds_the_sample_and_its_types_and_finds_it(tmp_path: Path) -> None:
    wheel = build("wheel", ROOT, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    assert {f"convmodel_cli/sample_data/{name}" for name in SAMPLE} | {"convmodel_cli/py.typed"} <= names
    assert "convmodel_cli/workflows/report.html.jinja" in names
    assert not [name for name in names if name.startswith(("tests", "sample_data"))]
    place = tmp_path / "installed"
    assert found_from(place) == (place / "convmodel_cli/sample_data/probes.jsonl").resolve()


def test_the_source_archive_builds_a_wheel_with_the_sample(tmp_path: Path) -> None:
    archive = build("sdist", ROOT, tmp_path / "dist")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    [source] = (tmp_path / "source").iterdir()
    assert found_from(source) == (source / "sample_data/probes.jsonl").resolve()
    with zipfile.ZipFile(build("wheel", source, tmp_path / "again")) as wheel:
        assert "convmodel_cli/sample_data/train.jsonl" in wheel.namelist()


def test_an_editable_checkout_finds_the_sample_beside_the_package() -> None:
    assert found_from(ROOT) == ROOT / "sample_data/probes.jsonl"


def test_the_sample_is_what_its_script_writes() -> None:
    subprocess.run([sys.executable, "make.py", "--check"], cwd=ROOT / "sample_data", check=True)


def test_the_sample_is_large_and_varied_enough_and_no_two_files_share_a_conversation() -> None:
    conversations = {
        name: [tuple(message["content"] for message in json.loads(line)["messages"]) for line in lines]
        for name in ("train", "valid", "test")
        if (lines := (ROOT / "sample_data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    }
    assert len(conversations["train"]) >= 2000
    assert len(conversations["valid"]) == len(conversations["test"]) == 200
    everything = [turns for part in conversations.values() for turns in part]
    assert len(set(everything)) == len(everything)
    assert {len(turns) for turns in everything} == {2, 4, 6, 8, 10, 12}
    assert len((ROOT / "sample_data/probes.jsonl").read_bytes().splitlines()) == 100
