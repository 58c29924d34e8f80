"""Checkpoints on the disk: whole or not there, checked before they are used, and room for them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from convmodel_cli.errors import ModelError, StorageError
from convmodel_cli.events import Saved, Stepped
from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.checkpoints import (
    Checkpoint,
    Damage,
    check_checkpoint,
    find_checkpoints,
    newest_sound,
    remove_checkpoints,
    save_checkpoint,
)
from convmodel_cli.workflows.fit import FitRequest, fit
from harness import RUN, Result, Server, assert_loads, copy_workshop, result_of

CUT = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


def save(output: Path, step: int, keep: int = 2, size: int = 0) -> Path:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights" * step)
        (folder / "optimizer.safetensors").write_bytes(b"averages" * step)

    return save_checkpoint(output, step, {"step": step}, write, size, keep)


def truncate(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_the_newest_are_kept_and_read_back(tmp_path: Path) -> None:
    for step in (5, 10, 15, 1_000_000):
        save(tmp_path, step, keep=3)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-1000000", "step-000015", "step-000010"]
    found, damaged = newest_sound(tmp_path)
    assert found is not None and found.state == {"step": 1_000_000} and not damaged


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_file_is_named_and_the_one_before_is_taken(tmp_path: Path, name: str, share: float) -> None:
    save(tmp_path, 5)
    newest = save(tmp_path, 10)
    truncate(newest / name, share)
    found, [damage] = newest_sound(tmp_path)
    assert found is not None and found.state == {"step": 5}
    assert damage.path == newest and name in damage.reason


@pytest.mark.parametrize("name", CUT)
def test_every_flipped_bit_and_a_missing_file_are_found(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 5)
    for bit in range((path / name).stat().st_size * 8):
        flip(path / name, bit)
        damage = check_checkpoint(path)
        assert isinstance(damage, Damage), bit
        flip(path / name, bit)
    assert isinstance(check_checkpoint(path), Checkpoint)
    (path / name).unlink()
    damage = check_checkpoint(path)
    assert isinstance(damage, Damage) and damage.reason == f"{name} is missing"


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"{}", b'{"files":{}}\n', b'{"files":{"state.json":1}}\n'])
def test_a_manifest_that_is_none_is_damage(tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path, 5)
    (path / "manifest.json").write_bytes(content)
    damage = check_checkpoint(path)
    assert isinstance(damage, Damage) and damage.reason == "manifest.json is damaged"


def test_an_unknown_file_is_only_mentioned(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    (path / "mine.txt").write_text("hello")
    found = check_checkpoint(path)
    assert isinstance(found, Checkpoint) and found.unknown == ("mine.txt",)


def test_if_all_are_damaged_each_is_named_with_its_reason(tmp_path: Path) -> None:
    truncate(save(tmp_path, 5) / "state.json", 0)
    (save(tmp_path, 10) / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        newest_sound(tmp_path)
    assert "step-000010: model.safetensors is missing" in str(caught.value)
    assert "step-000005: state.json is damaged: expected 11 bytes, got 0" in str(caught.value)


def test_only_our_own_are_removed_and_links_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path, 5)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious.txt").write_text("keep")
    folder = tmp_path / "checkpoints"
    (folder / "step-000007").symlink_to(victim)
    (folder / "notes.txt").write_text("keep")
    (folder / ".step-000009.new").mkdir()
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-000005"]
    remove_checkpoints(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "step-000007"]
    assert (victim / "precious.txt").read_text() == "keep"


def test_too_little_room_is_said_in_bytes_before_anything_is_written(tmp_path: Path) -> None:
    save(tmp_path, 5)
    with pytest.raises(StorageError, match=r"a checkpoint needs 1,000,000,000,000,000 bytes, and [\d,]+ are free"):
        save(tmp_path, 10, size=10**15)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000005"]


def test_too_little_room_for_a_better_model_ends_the_run_and_keeps_the_one_before(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else fills the disk after the first step."""
    output = tmp_path / "out"
    request = FitRequest(
        (str(workshop / "train.jsonl"),), (str(workshop / "valid.jsonl"),), str(workshop / "tiny"), str(output)
    )
    machine = ComputeSettings(device="cpu", precision="fp32")
    events = fit(request, RunSettings(), TrainingSettings(batch_size=4, max_steps=4, eval_every=2), machine)
    for event in events:
        if isinstance(event, Saved):
            before = (output / "model.safetensors").read_bytes()
        if isinstance(event, Stepped):
            monkeypatch.setattr("convmodel_cli.storage.free_bytes", lambda _: 1000)
            break
    with pytest.raises(StorageError, match=r"out: a model needs [\d,]+ bytes, and 1,000 are free on its disk"):
        list(events)
    assert (output / "model.safetensors").read_bytes() == before
    assert not [path for path in output.iterdir() if path.name.startswith(".")]
    assert not find_checkpoints(output)


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    save(tmp_path, 5)
    with pytest.raises(StorageError, match="No space left on device"):
        save_checkpoint(tmp_path, 10, {}, fail, 0, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000005"]


def test_files_reach_the_disk_before_the_name_and_none_is_written_after_it(
    server: Server, workshop: Path, tmp_path: Path
) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    log = folder / "log"
    server.run([*RUN, "--max-steps", "5"], folder, under=str(folder / "out"), log=str(log)).check()
    lines = [line.replace(f"{folder}/", "") for line in log.read_text().splitlines()]
    new, named = "out/checkpoints/.step-000005.new", "out/checkpoints/step-000005"
    renamed = lines.index(f"os.rename {new} {named}")
    before = lines[:renamed]
    synced = [before.index(f"fsync {new}/{name}") for name in sorted(CUT)]
    assert max(synced) < before.index(f"fsync {new}")
    # The checkpoint says how long the journal is, which ends with what is said of the best weights.
    swapped = max(number for number, line in enumerate(before) if line.endswith("out/model.safetensors"))
    assert "fsync out/events.jsonl" in before[swapped:]
    assert lines[renamed + 1] == "fsync out/checkpoints"
    assert not [line for line in lines[renamed + 1 :] if f"open {named}" in line]
    for number, line in enumerate(lines):
        if line.startswith("os.rename") and line.endswith(("out/model.safetensors", "out/convmodel.json")):
            assert f"fsync {line.split()[1]}" in lines[:number], line
            assert lines[number + 1] == "fsync out", line


DAMAGED = [("optimizer.safetensors", "flip")]
MORE_DAMAGED = [
    (name, damage) for name in CUT for damage in ("flip", "cut", "missing") if (name, damage) not in DAMAGED
]


@pytest.mark.parametrize(
    ("name", "damage"), [*DAMAGED, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_DAMAGED)]
)
def test_a_run_passes_over_a_damaged_checkpoint_and_ends_the_same(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path, name: str, damage: str
) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    stopped(server, folder, after=17)
    newest = find_checkpoints(folder / "out")[0]
    assert newest.name == "step-000017"
    broken = newest / name
    if damage == "cut":
        truncate(broken, 0.5)
    elif damage == "flip":
        middle = broken.stat().st_size * 4
        flip(broken, middle if name != "manifest.json" else 4)  # in its middle is the digest of another file
    else:
        broken.unlink()
    ended = server.run([*RUN, "--resume"], folder).check()
    [warning] = [line for line in ended.err.splitlines() if "passed over" in line]
    reason = "missing" if damage == "missing" else "damaged"
    assert warning.startswith(f"{Path('out/checkpoints/step-000017')}: {name} is {reason}")
    assert "going on after step 15" in ended.err
    assert result_of(folder / "out") == uninterrupted


def test_a_file_that_does_not_belong_to_a_checkpoint_is_warned_of_and_the_run_goes_on_from_there(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path
) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    stopped(server, folder, after=35)
    newest = find_checkpoints(folder / "out")[0]
    (newest / "mine.txt").write_text("hello")
    ended = server.run([*RUN, "--resume"], folder).check()
    path = Path("out/checkpoints/step-000035")
    assert f"{path}: mine.txt does not belong there\n" in ended.err and "passed over" not in ended.err
    assert f"going on after step 35, from {path}\n" in ended.err
    assert (newest / "mine.txt").read_text() == "hello"
    assert result_of(folder / "out") == uninterrupted


def test_a_damaged_checkpoint_is_written_again_when_its_step_comes_again(
    server: Server, workshop: Path, tmp_path: Path
) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    stopped(server, folder, after=15)
    newest, before = find_checkpoints(folder / "out")
    truncate(newest / "model.safetensors", 0.5)
    place = "convmodel_cli.model.training:accumulate_gradients"
    server.run([*RUN, "--resume", "--keep", "3"], folder, signal_at=place, signal="SIGTERM", nth=7).check(143)
    assert [path.name for path in find_checkpoints(folder / "out")] == ["step-000017", "step-000015", "step-000010"]
    assert isinstance(check_checkpoint(newest), Checkpoint) and isinstance(check_checkpoint(before), Checkpoint)


def stopped(server: Server, folder: Path, after: int) -> None:
    """Leave a run that was stopped after this step."""
    place = "convmodel_cli.model.training:accumulate_gradients"
    server.run(RUN, folder, signal_at=place, signal="SIGTERM", nth=after).check(143)


def test_all_checkpoints_damaged_is_an_error_and_never_silent(server: Server, workshop: Path, tmp_path: Path) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    stopped(server, folder, after=12)
    for path in find_checkpoints(folder / "out"):
        (path / "manifest.json").write_text("nonsense")
    ended = server.run([*RUN, "--resume"], folder).check(4)
    assert "step-000012: manifest.json is damaged" in ended.err and "step-000010" in ended.err
    assert_loads(folder / "out")


@pytest.mark.parametrize(
    ("part", "named"),
    [("progress", "'progress'"), ("journal_bytes", "'journal_bytes'"), ("run", "'run'")]
    + [("progress.step", "'step'"), ("progress.nats_since", "'nats_since'")],
)
def test_a_state_that_lacks_a_part_is_refused_by_name(
    server: Server, workshop: Path, tmp_path: Path, part: str, named: str
) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    stopped(server, folder, after=3)
    [path] = find_checkpoints(folder / "out")
    state = json.loads((path / "state.json").read_text())
    owner: Any = state
    *parents, name = part.split(".")
    for parent in parents:
        owner = owner[parent]
    del owner[name]
    commit_again(folder / "out", path, state)
    ended = server.run([*RUN, "--resume"], folder).check(4)
    assert named in ended.err


def test_a_checkpoint_without_its_optimizer_is_refused_by_name(server: Server, workshop: Path, tmp_path: Path) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    stopped(server, folder, after=3)
    [path] = find_checkpoints(folder / "out")
    state = json.loads((path / "state.json").read_text())
    (path / "optimizer.safetensors").unlink()
    commit_again(folder / "out", path, state)
    ended = server.run([*RUN, "--resume"], folder).check(4)
    assert "optimizer.safetensors" in ended.err


def test_an_optimizer_that_lacks_a_tensor_is_refused(server: Server, workshop: Path, tmp_path: Path) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    stopped(server, folder, after=3)
    [path] = find_checkpoints(folder / "out")
    state = json.loads((path / "state.json").read_text())
    file = path / "optimizer.safetensors"
    with safe_open(str(file), "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file, metadata)
    commit_again(folder / "out", path, state)
    ended = server.run([*RUN, "--resume"], folder).check(4)
    assert "optimizer.safetensors has" in ended.err


def test_hidden_files_of_the_user_stay(server: Server, workshop: Path, tmp_path: Path) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    stopped(server, folder, after=3)
    mine = [".README.md.swp", ".config.json.mine", "checkpoints/.step-notes.txt", "checkpoints/.step-000001.new.txt"]
    for name in mine:
        (folder / "out" / name).write_text("mine")
    (folder / "out" / ".model.safetensors.abcd1234.half").write_text("ours")
    server.run([*RUN, "--resume"], folder).check()
    assert all((folder / "out" / name).read_text() == "mine" for name in mine)
    assert not (folder / "out" / ".model.safetensors.abcd1234.half").exists()


def commit_again(output: Path, path: Path, state: dict[str, Any]) -> None:
    """The same checkpoint with another state and a manifest that fits."""
    kept = {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.suffix == ".safetensors"}
    shutil.rmtree(path)

    def write(folder: Path) -> None:
        for name, content in kept.items():
            (folder / name).write_bytes(content)

    save_checkpoint(output, int(path.name[5:]), state, write, 0, 2)


@pytest.mark.parametrize("keep", ["1", "3"])
def test_as_many_checkpoints_are_kept_as_asked_and_all_go_when_the_run_is_done(
    server: Server, workshop: Path, tmp_path: Path, keep: str
) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    run = [word for word in RUN if word != "--keep-checkpoints"]
    options = ["--keep", keep, "--save-every", "3"]
    server.run([*run, *options], folder, signal_at="convmodel_cli.workflows.run:write_model_card", signal="SIGKILL")
    steps = [path.name for path in find_checkpoints(folder / "out")]
    assert steps == ["step-000040", "step-000039", "step-000036"][: int(keep)]
    server.run([*run, *options, "--resume"], folder).check()
    assert not (folder / "out" / "checkpoints").exists()


SMALL_DISK = """
set -e
mount -t tmpfs -o size={size} tmpfs {disk}
{before}
{python} -m convmodel_cli {arguments}
"""


def on_small_disk(folder: Path, size: str, arguments: list[str], before: str = ":") -> subprocess.CompletedProcess[str]:
    """Run a command whose `disk` folder is a disk of its own; skips where the system allows no such thing."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0:
        pytest.skip("no private disks here")
    script = SMALL_DISK.format(
        size=size, disk=disk, before=before, python=sys.executable, arguments=" ".join(arguments)
    )
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_disk_too_small_for_the_run_is_refused_before_the_first_step(workshop: Path, tmp_path: Path) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    ended = on_small_disk(folder, "1m", [*RUN, "-o", "disk/out"])
    assert ended.returncode == 7, ended.stderr
    assert "disk/out: the run needs" in ended.stderr and "are free on its disk" in ended.stderr
    assert "Ep 1" not in ended.stderr


@pytest.mark.slow
def test_a_read_only_place_is_refused_before_the_first_step(workshop: Path, tmp_path: Path) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    remount = f"mount -o remount,ro tmpfs {folder}/disk"
    ended = on_small_disk(folder, "9m", [*RUN, "-o", "disk/out"], before=remount)
    assert ended.returncode == 7, ended.stderr
    assert "Read-only file system" in ended.stderr and "Ep 1" not in ended.stderr


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_run_with_a_checkpoint_to_go_on_from(
    server: Server, workshop: Path, uninterrupted: Result, tmp_path: Path
) -> None:
    """Room for the model, its replacement and one and a half checkpoints; then the disk grows, and the run goes on."""
    folder = copy_workshop(workshop, tmp_path / "w")
    out = folder / "disk" / "out"
    arguments = " ".join([*RUN, "-o", "disk/out"])
    again = (
        f"{sys.executable} -m convmodel_cli {arguments} || echo $? > first; ls disk/out/checkpoints > kept; "
        "mount -o remount,size=64m tmpfs disk"
    )
    ended = on_small_disk(folder, "2400k", [*RUN, "-o", "disk/out", "--resume", "&&", "cp", "-r", str(out), "."], again)
    assert (folder / "first").read_text() == "7\n", ended.stderr
    assert "a checkpoint needs" in ended.stderr and "are free on its disk" in ended.stderr
    assert (folder / "kept").read_text() == "step-000005\n"
    assert ended.returncode == 0, ended.stderr
    assert_loads(folder / "out")
    result = result_of(folder / "out")
    assert (result.best, result.weights, result.optimizer) == (
        uninterrupted.best, uninterrupted.weights, uninterrupted.optimizer,
    )  # fmt: skip


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_linked_output_is_followed_and_modes_are_those_of_the_umask(
    server: Server, workshop: Path, tmp_path: Path, umask: int
) -> None:
    folder = copy_workshop(workshop, tmp_path / "w")
    real = tmp_path / "real"
    real.mkdir()
    (folder / "out").symlink_to(real)
    beside = sorted(tmp_path.iterdir())
    server.run([*RUN, "--max-steps", "5"], folder, umask=umask).check()
    assert (folder / "out").is_symlink() and sorted(tmp_path.iterdir()) == beside
    files = [path for path in real.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}
    assert {path.stat().st_mode & 0o777 for path in real.rglob("*") if path.is_dir()} == {0o777 & ~umask}
