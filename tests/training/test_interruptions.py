"""Whatever ends a run, nothing is lost: it can be resumed or started over, and the message is one line."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training.runs import small_config, write_digits

from retina_ops.cli import main
from retina_ops.data import DataError, read_image
from retina_ops.errors import WorkerError
from retina_ops.models import build_model
from retina_ops.settings import to_toml
from retina_ops.training import TrainConfig, Trainer, train
from retina_ops.training.batches import Batches
from retina_ops.training.checkpoint import load_checkpoint, save_checkpoint
from retina_ops.training.ema import averaged_model
from retina_ops.training.lock import locked
from retina_ops.training.optimizer import build_optimizer
from retina_ops.training.resuming import restore


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), 4)


def run_config(digits: Path, **changes: object) -> TrainConfig:
    """Three epochs of two updates, validated after the second and the third."""
    config = small_config(digits, epochs=3, batch_size=2, ema_decay=0.9, validate_every=2, **changes)
    config.model.min_size = config.model.max_size = 64
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A run that nothing interrupts. Tests that change it make a copy."""
    folder = tmp_path_factory.mktemp("whole")
    train(run_config(digits), folder)
    return folder


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, dirs_exist_ok=True))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_run(a: Path, b: Path) -> None:
    first, second = load_checkpoint(a), load_checkpoint(b)
    for part in ("model", "ema"):
        assert [name for name, value in first[part].items() if not torch.equal(value, second[part][name])] == []
    durations = {"validation_seconds": 0}
    assert {**first["position"], **durations} == {**second["position"], **durations}
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (a, b)]
    assert metrics[0]["AP"] == metrics[1]["AP"] and metrics[0]["steps"] == metrics[1]["steps"]


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """Signals as in a foreground process. A background process inherits an ignored SIGINT, which training respects."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["first update", "update", "validation", "last evaluation"])
def test_a_signal_saves_the_run(
    tmp_path: Path,
    digits: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    where: str,
) -> None:
    config, calls = run_config(digits), []
    owner: Any = Trainer
    name, at = {"first update": ("_backward", 1), "update": ("_backward", 3), "validation": ("_metrics", 1)}.get(
        where, ("_evaluate_best", 1)
    )
    if where == "last evaluation":
        from retina_ops.training import run as owner
    original = getattr(owner, name)

    def signalled(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(number)
            signal.raise_signal(number)  # launchers repeat signals
        return original(*arguments)

    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, signalled)
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as ended:
            train(config, tmp_path)
    assert number == signal.SIGINT or ended.value.code == 143
    assert handlers == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    step = {"first update": 1, "update": 3, "validation": 4, "last evaluation": 6}[where]
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"stopped at step {step}: {tmp_path / 'last.pt'} is saved, --resume continues"
    )
    assert load_checkpoint(tmp_path)["position"]["step"] == step
    train(config, tmp_path, resume=True)
    assert_same_run(whole, tmp_path)
    steps = [(line["kind"], line["step"]) for line in map(json.loads, (tmp_path / "metrics.jsonl").open())]
    assert [entry for entry in steps if entry[0] != "train"] == [("val", 4), ("val", 6), ("chosen", 6)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_exit_status_of_the_command(tmp_path: Path, digits: Path, number: int, status: int) -> None:
    config = run_config(digits)
    config.epochs = 10**6
    config.data.workers = 1
    (tmp_path / "c.toml").write_text(to_toml(config))
    output = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "retina_ops",
        "train",
        "--config",
        str(tmp_path / "c.toml"),
        "--output",
        str(output),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    wait_for(lambda: (output / "metrics.jsonl").exists(), process)
    os.killpg(process.pid, number)  # as a terminal does: the loader's worker as well
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == status and "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert last.startswith("stopped at step ") and f"{output / 'last.pt'} is saved, --resume continues" in last
    assert load_checkpoint(output)["position"]["step"] > 0
    assert main(["train", "--resume", "--output", str(output), "--epochs", "1"]) == 0


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    """Waits until something holds, or the process ends."""
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)


def test_a_folder_has_one_run_at_a_time(tmp_path: Path, digits: Path, whole: Path) -> None:
    folder = copy_of(whole, tmp_path / "run")
    before = contents(folder)
    with locked(folder):
        for resume in (False, True):
            with pytest.raises(DataError, match="another process trains in this folder"):
                train(run_config(digits), folder, resume=resume)
    assert contents(folder) == before
    train(run_config(digits), folder, resume=True)  # the lock is free


def test_the_lock_is_freed_however_its_process_ends(tmp_path: Path) -> None:
    """Also while a process that it forked lives on."""
    ready, alive = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            if os.fork() == 0:
                os.write(ready[1], b"x")
                os.close(alive[1])
                os.read(alive[0], 1)  # until the test closes its end
                os._exit(0)
            signal.pause()
    os.close(ready[1])
    assert os.read(ready[0], 1) == b"x"
    with pytest.raises(DataError, match="another process"), locked(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path):
        pass
    os.close(alive[1])


def test_a_run_without_a_checkpoint_is_started_over(
    tmp_path: Path, digits: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Such a run was killed before the first checkpoint, by an earlier version of this package."""
    for name in ("metrics.jsonl", "config.toml"):
        shutil.copy(whole / name, tmp_path / name)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    (tmp_path / ".last.pt.12345.12345.partial").write_bytes(b"half")
    assert main(["train", "--resume", "--output", str(tmp_path)]) == 1
    assert "start it again without --resume" in capfd.readouterr().err
    train(run_config(digits), tmp_path)
    assert f"{tmp_path}: a run that ended before its first checkpoint is started over" in capfd.readouterr().err
    assert_same_run(whole, tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_killed_run_can_be_resumed_from_its_first_moment(
    tmp_path: Path, digits: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Trainer, "_backward", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        train(run_config(digits), tmp_path)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (tmp_path / "config.toml").unlink()  # killed even earlier: the checkpoint has the settings as well
    assert main(["train", "--resume", "--output", str(tmp_path)]) == 0
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize("name", ["config.toml", "metrics.json", "detections.json", "loss.png", "metrics.jsonl"])
def test_a_new_run_replaces_no_file_of_others(tmp_path: Path, digits: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name} exists and would be replaced: choose another --output"):
        train(run_config(digits), tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_resumption_that_fails_leaves_the_run_as_it_was(
    tmp_path: Path, digits: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(whole, tmp_path / "run")
    (folder / "metrics.jsonl").write_bytes((folder / "metrics.jsonl").read_bytes() + b'{"kind": "train", "step": 99}\n')
    before = contents(folder)
    overrides = {
        "--optimizer.name=sgd": "optimizer.name cannot be changed",
        "--model.fpn-channels=48": "another model or optimizer",
        "--ema-decay=0": "ema_decay cannot be switched",
        "--batch-size=4": "images per update",
        "--optimizer.lr=-1": "optimizer.lr must be",
        "--data.train=none.json": "none.json: no such file",
        "--data.val=none.json": "none.json: no such file",
        "--device=cuda:77": "device 'cuda:77' does not exist",
    }
    for override, reason in overrides.items():
        assert main(["train", "--resume", "--output", str(folder), "--epochs=4", override]) == 1, override
        *_, line = capsys.readouterr().err.splitlines()
        assert line.startswith("retina-ops train: ") and reason in line, line
        assert contents(folder) == before, override
    assert main(["train", "--resume", "--output", str(folder), "--epochs=4"]) == 0


def test_damage_is_one_line_that_names_the_checkpoint_before(tmp_path: Path, digits: Path, whole: Path) -> None:
    folder = copy_of(whole, tmp_path / "run")
    good, previous = (folder / "last.pt").read_bytes(), (folder / "previous.pt").read_bytes()
    damaged = {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "without its end": good[:-1],
        "longer": good + b"\0",
        "text": b"no checkpoint",
    }
    for position in (
        0,
        3,
        70,
        len(good) // 3,
        len(good) // 2,
        len(good) - 300,
        len(good) - 95,
        len(good) - 70,
        -64,
        -1,
    ):
        flipped = bytearray(good)
        flipped[position] ^= 1
        damaged[f"byte {position}"] = bytes(flipped)
    for name, content in damaged.items():
        (folder / "last.pt").write_bytes(content)
        with pytest.raises(DataError) as error:
            train(run_config(digits), folder, resume=True)
        text = str(error.value)
        assert text.startswith(f"{folder / 'last.pt'}: ") and "\n" not in text, name
        assert text.endswith(f"to continue from it, cp {folder / 'previous.pt'} {folder / 'last.pt'}"), (name, text)
        assert (folder / "previous.pt").read_bytes() == previous
    (folder / "last.pt").unlink()
    with pytest.raises(DataError, match=r"last\.pt: no such file; the checkpoint before it is whole"):
        train(run_config(digits), folder, resume=True)
    with pytest.raises(ValueError, match="already holds a run"):
        train(run_config(digits), folder)
    shutil.copy(folder / "previous.pt", folder / "last.pt")
    train(run_config(digits), folder, resume=True)
    assert_same_run(whole, folder)


def test_a_damaged_checkpoint_does_not_replace_the_one_before(tmp_path: Path) -> None:
    state = {"model": {}, "step": 1}
    save_checkpoint(tmp_path, state)
    first = (tmp_path / "last.pt").read_bytes()
    save_checkpoint(tmp_path, {**state, "step": 2})
    assert (tmp_path / "previous.pt").read_bytes() == first
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:-1] + b"!")
    save_checkpoint(tmp_path, {**state, "step": 3})
    assert (tmp_path / "previous.pt").read_bytes() == first


ODD = [None, -1, float("nan"), [1], {"a": 1}, torch.ones(2)]


def test_missing_and_odd_fields_are_one_line(tmp_path: Path, digits: Path, whole: Path) -> None:
    config, state = run_config(digits), load_checkpoint(whole)
    del state["format"]
    variants: list[tuple[str, str, dict[str, Any]]] = []
    for key in state:
        variants.append((key, "missing", {name: value for name, value in state.items() if name != key}))
        variants += [(key, repr(odd), {**state, key: odd}) for odd in ODD]
    for key in ("position", "optimizer", "batches"):
        for name in state[key]:
            rest = {other: value for other, value in state[key].items() if other != name}
            variants.append((f"{key}.{name}", "missing", {**state, key: rest}))
            variants += [(f"{key}.{name}", repr(odd), {**state, key: {**state[key], name: odd}}) for odd in ODD]
    taken = set()
    model = build_model(config.model, state["categories"])
    ema = averaged_model(model, config.ema_decay)
    for field, change, variant in [*variants, ("", "", state)]:
        save_checkpoint(tmp_path, variant)
        optimizer = build_optimizer(model, config.optimizer)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        batches = Batches(config.batch_size, 1, config.optimizer.accumulate)
        try:
            loaded = load_checkpoint(tmp_path)
            restore(loaded, model, optimizer, scaler, ema, categories=model.categories, batches=batches)
        except (DataError, ValueError) as error:
            assert "\n" not in str(error) and str(error), (field, change)
        else:
            taken.add(field)
    # Numbers that a run can have, settings that the run is given anew, and the loss scale, which float32 does not use.
    numbers = {f"position.{name}" for name in state["position"]}
    assert {""} <= taken <= {"", "config", "scaler", "seconds", *numbers}


def test_a_file_that_cannot_be_written_is_one_line_and_the_last_checkpoint_is_whole(
    tmp_path: Path, digits: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the file size acts as a full disk does: a part of the file is written."""
    backward, limits = Trainer._backward, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(self: Trainer, *arguments: Any) -> Any:
        if self.step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        return backward(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_backward", limited)
        with pytest.raises(OSError, match=r"File too large: '.*'") as error:
            try:
                train(run_config(digits), tmp_path)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename in (str(tmp_path / "best/model.safetensors"), str(tmp_path / "last.pt"))
    assert load_checkpoint(tmp_path)["position"]["step"] == 2
    assert not list(tmp_path.rglob("*.partial"))
    train(run_config(digits), tmp_path, resume=True)
    assert_same_run(whole, tmp_path)


def test_a_run_whose_first_checkpoint_cannot_be_written_leaves_nothing(tmp_path: Path, digits: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(OSError, match=r"File too large: '.*last\.pt'"):
            train(run_config(digits), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_vanished_image_and_a_killed_worker(
    tmp_path: Path, digits: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    data = copy_of(digits, tmp_path / "data")
    config = run_config(data)
    config.data.workers = workers
    victim = sorted((data / "images/train").iterdir())[0]
    update = Trainer._update

    def vanishing(self: Trainer, progress: float) -> float:
        if self.step == 2:
            victim.unlink(missing_ok=True)
        return update(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", vanishing)
        with pytest.raises(DataError) as error:
            train(config, tmp_path / "run")
    assert str(error.value) == f"{victim}: no such image file"
    assert load_checkpoint(tmp_path / "run")["position"]["step"] >= 2
    shutil.copy(digits / "images/train" / victim.name, victim)
    if workers:
        parent = os.getpid()

        def deadly(*arguments: Any, **options: Any) -> Any:
            if os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            return read_image(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr("retina_ops.data.file_dataset.read_image", deadly)
            with pytest.raises(WorkerError, match=r"^DataLoader worker \(pid.*\) .*: often the memory ran out") as died:
                train(config, tmp_path / "run", resume=True)
        assert "\n" not in str(died.value)
    train(config, tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")
