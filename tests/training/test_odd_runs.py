"""Run folders that are not what they ought to be: the newest good state is taken, or one line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import fit_here, read_run
from training import checkpoint, evaluate, explore, export, probe, sample, walk


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished run `whole` and its shards."""
    folder = tmp_path_factory.mktemp("odd")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert fit_here("whole", SmallShards(folder / "set")) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, in the current folder."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "whole"


def rewrite(run: Path, change: Callable[[dict[str, Any]], Any], number: int = 0) -> Path:
    """Change the values of a checkpoint and let its record fit; its data."""
    saved = checkpoint.list_checkpoints(run / "checkpoints")[number]
    values = torch.load(saved.data_path, weights_only=True)
    values = change(values) or values
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return with_bytes(saved, buffer.getvalue())


def with_bytes(saved: checkpoint.CheckpointInfo, data: bytes) -> Path:
    saved.data_path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    saved.metadata_path.write_text(
        json.dumps({"seen": saved.seen, "bytes": len(data), "sha256": digest})
    )
    return saved.data_path


def first(values: dict[str, Any], network: str = "average") -> str:
    return next(name for name, one in values["state"][network].items() if one.is_floating_point())


def set_weight(values: dict[str, Any], value: Any) -> None:
    for network in ("generator", "average"):
        values["state"][network][first(values, network)] = value


def spoil(values: dict[str, Any]) -> None:
    values["state"]["average"][first(values)].fill_(float("nan"))


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda _: [1, 2],
    "no state": lambda values: values.pop("state") and None,
    "a number for the state": lambda values: values.update(state=3),
    "no average": lambda values: values["state"].pop("average") and None,
    "a tensor for a network": lambda values: values["state"].update(average=torch.zeros(3)),
    "a weight of another shape": lambda values: set_weight(values, torch.zeros(7)),
    "a weight that is a word": lambda values: set_weight(values, "none"),
    "a weight that is NaN": lambda values: spoil(values),
    "whole numbers for weights": lambda values: set_weight(values, torch.zeros(1, dtype=torch.int)),
    "a negative number of images": lambda values: values["state"].update(seen=-5),
    "words for the number of images": lambda values: values["state"].update(seen="many"),
}
OF_RESUMING: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no history": lambda values: values.pop("history") and None,
    "another history": lambda values: values.update(history="{\n"),
    "rows that are none": lambda values: values.update(history='{"seen": "x"}\n'),
    "no meter": lambda values: values.pop("meter") and None,
    "a meter of words": lambda values: values.update(meter={"sums": {"a": "b"}, "counts": {}}),
    "no time": lambda values: values.update(seconds=float("nan")),
    "no optimiser": lambda values: values["state"].update(g_optimizer={}),
    "an optimiser of another shape": lambda values: values["state"]["g_optimizer"]["state"][
        0
    ].update(exp_avg=torch.zeros(2, 9)),
    "a rate of words": lambda values: values["state"]["d_optimizer"]["param_groups"][0].update(
        lr="fast"
    ),
}


@pytest.mark.parametrize("change", [*CHANGES, *OF_RESUMING])
def test_training_goes_on_from_the_last_checkpoint_that_can_be_used(
    change: str, run: Path, trained: Path, capsys: pytest.CaptureFixture[str],

) -> None:  # fmt: skip
    rows, weights = read_run(run)
    data = rewrite(run, (CHANGES | OF_RESUMING)[change])
    assert fit_here("whole", str(trained / "set/manifests/small")) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if "falling back to the one before" in line]
    assert len(lines) == 1
    assert data.name in lines[0]
    assert "resuming at 0.36 kimg" in said
    other_rows, other_weights = read_run(run)
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert not list((run / "checkpoints").glob("*.unusable"))  # the run is past them


def test_where_no_checkpoint_can_be_used_the_run_stays_as_it_is(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(len(checkpoint.list_checkpoints(run / "checkpoints"))):
        rewrite(run, CHANGES["no state"], number)
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    assert fit_here("whole", str(trained / "set/manifests/small")) == 2
    said = capsys.readouterr().err
    assert "no checkpoint can be used" in said
    assert len(said.splitlines()) == 1
    assert before == {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}


def test_a_newer_unusable_checkpoint_never_drives_out_good_ones(run: Path, trained: Path) -> None:
    rewrite(run, CHANGES["no state"])
    options = ("--record.keep", "1", "--max-hours", "1e-9")  # ends with its first step
    assert fit_here("whole", str(trained / "set/manifests/small"), *options) == 0
    assert list((run / "checkpoints").glob("*.unusable"))
    assert fit_here("whole", str(trained / "set/manifests/small")) == 0
    assert checkpoint.list_checkpoints(run / "checkpoints")[0].seen == 400


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/best", "samples", "tensorboard"])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_run_without_room_for_its_folders_is_refused_before_it_trains(
    name: str, kind: str, run: Path, trained: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = run / name
    shutil.rmtree(folder, ignore_errors=True)
    if kind == "file":
        folder.write_text("x")
    else:
        folder.symlink_to("/none/there")
    for options in ((), ("--dry-run",)):
        assert fit_here("whole", str(trained / "set/manifests/small"), *options) == 2
        said = capsys.readouterr()
        assert said.err == f"error: runs/whole/{name}: Not a directory\n"
        assert "resuming" not in said.out


@pytest.mark.timeout(60)
def test_a_lock_that_is_no_file_is_named(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / ".lock").unlink()
    os.mkfifo(run / ".lock")
    for options in ((), ("--dry-run",)):
        assert fit_here("whole", str(trained / "set/manifests/small"), *options) == 2
        assert capsys.readouterr().err == "error: runs/whole/.lock: not a regular file\n"


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("extension", [".pt", ".json"])
def test_a_folder_with_the_name_of_a_checkpoint_does_not_stop_the_run(
    number: int, extension: str, run: Path, trained: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    saved = checkpoint.list_checkpoints(run / "checkpoints")[number]
    path = saved.metadata_path.with_suffix(extension)
    path.unlink()
    path.mkdir()
    (path / "kept").touch()
    shards = str(trained / "set/manifests/small")
    assert fit_here("whole", shards, "--total-kimg", "0.48") == 0
    assert fit_here("whole", shards, "--total-kimg", "0.56") == 0  # nothing of it is in the way
    assert checkpoint.list_checkpoints(run / "checkpoints")[0].seen == 560
    assert len(list((run / "checkpoints").glob(f"{path.name}*/kept"))) == 1
    warned = capsys.readouterr().out.count("falling back to the one before")
    assert warned == (1 if number == 0 else 0)  # an older one does not matter


def test_metadata_with_another_number_is_not_the_newest_for_ever(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = checkpoint.list_checkpoints(run / "checkpoints")[1]
    values = json.loads(saved.metadata_path.read_text())
    saved.metadata_path.write_text(json.dumps(values | {"seen": 10**12}))
    shards = str(trained / "set/manifests/small")
    assert fit_here("whole", shards, "--total-kimg", "0.48") == 0
    assert "resuming at 0.4 kimg" in capsys.readouterr().out
    assert checkpoint.list_checkpoints(run / "checkpoints")[0].seen == 480


@pytest.mark.parametrize("change", CHANGES)
def test_what_draws_says_in_one_line_why_it_cannot(
    change: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rewrite(run, CHANGES[change])
    assert sample.main(["whole@0.4", "--out", "x.png", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert data.name in said or "runs/whole" in said
    assert not Path("x.png").exists()


def test_a_pickle_with_code_never_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = checkpoint.list_checkpoints(run / "checkpoints")[0]
    with_bytes(saved, b"cos\nsystem\n(S'touch ran'\ntR.")
    assert sample.main(["whole@0.4", "--out", "x.png"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path("ran").exists()
    assert sample.main(["whole", "--out", "x.png", "--device", "cpu"]) == 0  # the one before
    assert "using the previous one" in capsys.readouterr().err


CONFIGS: dict[str, Any] = {
    "a list": [],
    "no keys": {},
    "a number for a table": {"config": {"generator": 5, "generator.width": 3}},
    "a table for a number": {"config": {"generator.width": {"a": 1}}},
    "an unknown key": {"config": {"colour": "red"}},
    "another type": {"config": {"generator.width": "wide"}},
    "a huge network": {"config": {"generator.width": 2_000_000}},
    "endless layers": {
        "config": {"generator.name": "stylegan2", "generator.mapping_layers": 10**9}
    },
    "another network": {"config": {"generator.width": 8}},
    "no such kind": {"config": {"generator.name": "none"}},
    "a huge image": {"dataset": {"height": 10**9, "width": 10**9}},
    "no image": {"dataset": {"height": 0}},
    "a size that no network has": {"dataset": {"height": 17, "width": 19}},
    "labels that are numbers": {"dataset": {"labels": [1, 2]}},
    "a number of 400 digits": {"dataset": {"samples": 10**399}},
    "many images seen": {"seen": 10**400},
    "NaN": {"config": {"batch": float("nan")}},
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CONFIGS)
def test_an_odd_config_is_one_line_for_every_command(
    case: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = CONFIGS[case]
    if odd:
        values = json.loads((run / "config.json").read_text())
        for table, keys in odd.items():
            values[table] = values[table] | keys if isinstance(keys, dict) else keys
        odd = values
    (run / "config.json").write_text(json.dumps(odd))
    refused(run, capsys)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("odd", ["", "{", "[" * 100_000, "\ud83d", "fifo", "folder", "none"])
def test_what_is_no_config_is_one_line_for_every_command(
    odd: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.json").unlink()
    if odd == "fifo":
        os.mkfifo(run / "config.json")
    elif odd == "folder":
        (run / "config.json").mkdir()
    elif odd != "none":
        (run / "config.json").write_bytes(odd.encode("utf-8", "surrogatepass"))
    refused(run, capsys)


def test_half_a_character_in_a_label_does_no_harm(run: Path) -> None:
    values = json.loads((run / "config.json").read_text())
    values["dataset"]["labels"] = ["\ud83d"]
    (run / "config.json").write_text(json.dumps(values))
    assert export.main(["whole", "--format", "safetensors", "--out", "given"]) == 0
    assert json.loads(Path("given/config.json").read_text())["dataset"]["labels"] == ["\ud83d"]


def refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands: list[tuple[Callable[[list[str]], int], list[str]]] = [
        (sample.main, ["whole", "--out", "x.png"]),
        (walk.main, ["whole", "--out", "x.gif"]),
        (export.main, ["whole", "--out", "given"]),
        (evaluate.main, ["whole"]),
        (probe.main, ["whole"]),
    ]
    for main, arguments in commands:
        status = main(arguments) if main is probe.main else main([*arguments])
        said = capsys.readouterr().err
        assert status == 2, (main, said)
        assert len(said.splitlines()) == 1, said
        assert "whole" in said or "small" in said or "resolution" in said


def test_a_folder_of_samples_with_anything_in_it_and_none(run: Path, trained: Path) -> None:
    newest = max((run / "samples").glob("*.png"))
    newest.write_bytes(b"no picture")
    (run / "samples" / "holiday.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (run / "samples" / "0000000003.png").write_bytes(newest.read_bytes()[:20])
    where = str(trained / "set/manifests/small")
    assert fit_here("whole", where, "--total-kimg", "0.44") == 0
    assert "data:image/webp" in (run / "report.html").read_text()
    shutil.rmtree(run / "samples")
    assert fit_here("whole", where, "--total-kimg", "0.48") == 0
    assert list((run / "samples").glob("*.png"))


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b'{"seen": "x"}', b'{"loss_d": 1}', b"\xff", b'{"seen": 1e999}']
)
def test_odd_rows_are_one_line(line: bytes, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert export.main(["whole", "--format", "safetensors", "--out", "given"]) == 0
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("warning: runs/whole/metrics.jsonl")
    assert Path("given/README.md").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("odd", ["", "x" * 100, "fifo", "folder", "header", "name", "other"])
def test_a_damaged_export_is_one_line(
    odd: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["whole", "--format", "safetensors", "--out", "given"]) == 0
    weights = Path("given/model.safetensors")
    good = weights.read_bytes()
    weights.unlink()
    if odd == "fifo":
        os.mkfifo(weights)
    elif odd == "folder":
        weights.mkdir()
    elif odd == "header":
        weights.write_bytes((2**62).to_bytes(8, "little") + good[8:])
    elif odd == "name":
        header = json.dumps({"x" * 5000: 5}).encode()
        weights.write_bytes(len(header).to_bytes(8, "little") + header)
    elif odd == "other":
        from safetensors.torch import save

        weights.write_bytes(save({"a": torch.zeros(3)}))
    else:
        weights.write_bytes(odd.encode())
    capsys.readouterr()
    assert sample.main(["./given", "--out", "x.png"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "given" in said
    assert len(said) < 400


def test_advice_on_a_damaged_config_fits_a_run_or_an_export(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["whole", "--format", "safetensors", "--out", "given"]) == 0
    for folder, advice in ((run, "the same training.fit"), (Path("given"), "export the generator")):
        (folder / "config.json").write_text("{")
        assert sample.main([str(folder.absolute()), "--out", "x.png"]) == 2
        assert advice in capsys.readouterr().err


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("run")
def test_an_empty_host_does_not_serve_all_networks(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["whole", "--host", "", "--port", "0", "--no-browser", "--nearest", "off"]
    assert explore.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: --host: empty; use 127.0.0.1")


NO_RUNS = [
    "whole@", "whole@@", "whole@nan", "whole@-1", "whole@1e999", "..", ".", "", " ", "a\nb", "\0",
    "x" * 300, "whole/config.json", "/",
]  # fmt: skip


@pytest.mark.parametrize("name", NO_RUNS)
@pytest.mark.usefixtures("run")
def test_a_run_that_is_none_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main([name, "--out", "x.png"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_in_the_place_of_a_run_is_one_line(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs/taken").write_text("a file")
    assert fit_here("taken", str(trained / "set/manifests/small")) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "runs/taken" in said
