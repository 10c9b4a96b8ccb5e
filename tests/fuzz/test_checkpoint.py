"""Checkpoints with a matching hash and any structure: each can be used, or is passed over."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from training import best_checkpoint, checkpoint
from training.checkpoint_check import check_resumable
from training.config import Config
from training.monitoring.history import History
from training.monitoring.meter import Meter
from training.networks import ImageShape
from training.options.architectures import DcganDiscriminator, DcganGenerator
from training.state import State, new_state

SHAPE = ImageShape(16, 16, 3)
CONFIG = Config(
    generator=DcganGenerator(width=4, z_dim=8), discriminator=DcganDiscriminator(width=4)
)


def fresh() -> State:
    return new_state(CONFIG, SHAPE, torch.device("cpu"))


@cache
def own() -> State:
    return fresh()


@cache
def good() -> dict[str, Any]:
    """The values of a run after one step of its optimisers."""
    state = fresh()
    state.seen, state.steps = 8, 1
    state.scalars = {"augment_p": torch.tensor(0.5)}
    for network, optimizer in (
        (state.generator, state.g_optimizer),
        (state.discriminator, state.d_optimizer),
    ):
        sum(one.square().sum() for one in network.parameters()).backward()
        optimizer.step()
    history, meter = History(None), Meter()
    history.add({"seen": 8, "loss_d": 0.5, "loss_g": 0.25})
    meter.add({"loss_d": torch.tensor(1.0)})
    return {
        "state": state.tensors(), "history": history.text(), "meter": meter.state(), "seconds": 1.5,
    }  # fmt: skip


TENSORS = st.sampled_from([
    torch.zeros(3), torch.zeros(()), torch.tensor(float("nan")), torch.zeros(2, dtype=torch.int64),
    torch.zeros(1, dtype=torch.complex64), torch.zeros(1).expand(10**9), torch.zeros(0),
    torch.empty(4, 4).to_sparse(),
])  # fmt: skip
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), TENSORS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(values: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value, containers and all."""
    found = values.items() if isinstance(values, dict) else ()
    for key, value in found if found else enumerate(values if isinstance(values, list) else ()):
        yield (*at, key)
        yield from places(value, (*at, key))


PLACES = sorted(places(good()), key=str)
EDITS = st.lists(
    st.tuples(st.sampled_from(PLACES), st.one_of(JUNK, st.just("remove"))), min_size=1, max_size=3
)


def edited(edits: list[tuple[tuple[Any, ...], Any]]) -> dict[str, Any]:
    """The values of a run, some of which are other ones, or not there."""
    values = copy.deepcopy(good())
    for (*path, last), value in edits:
        inner: Any = values
        try:
            for key in path:
                inner = inner[key]
            if isinstance(value, str) and value == "remove":
                del inner[last]
            else:
                inner[last] = value
        except (KeyError, IndexError, TypeError):  # an earlier edit took its place away
            continue
    return values


def saved_as(
    folder: Path, seen: int, data: bytes, record: Mapping[str, Any]
) -> checkpoint.CheckpointInfo:
    made = checkpoint.CheckpointInfo(
        folder / f"{seen:010d}.json", seen, len(data), hashlib.sha256(data).hexdigest()
    )
    made.data_path.write_bytes(data)
    values = {"seen": seen, "bytes": made.bytes, "sha256": made.sha256, **record}
    made.metadata_path.write_text(json.dumps(values))
    return made


def packed(values: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def read_back(
    data: bytes, record: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, Any], list[str]]:
    """What is loaded where these bytes are the newest checkpoint and a good one lies before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved_as(folder, 8, packed(good()), {})
        saved_as(folder, 16, data, record)
        values, said = checkpoint.load_newest(
            folder, check=lambda values: check_resumable(values, own())
        )
        assert values is not None, "the good one was not found"
        assert all("\n" not in sentence for sentence in said)
        state = fresh()
        state.load(values["state"])
        History(None, values["history"])
        Meter().load(values["meter"], torch.device("cpu"))
        return values, said


def test_the_good_one_is_good() -> None:
    assert read_back(packed(good()))[1] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(EDITS)
@example([(("state", "g_optimizer", "param_groups", 0, "params", 0), torch.zeros(3))])
@example([(("state", "g_optimizer", "param_groups", 0, "params"), torch.zeros(3))])
@example([(("state", "g_scaler"), torch.zeros(3))])
def test_another_structure_is_passed_over_or_loads(
    edits: list[tuple[tuple[Any, ...], Any]],
) -> None:
    read_back(packed(edited(edits)))


@pytest.mark.slow
@given(JUNK)
def test_other_values_are_passed_over(values: Any) -> None:
    assert read_back(packed(values))[1]


def zipped(name: str, content: bytes, packing: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.slow
@given(st.binary(max_size=300))
@example(zipped("archive/data.pkl", b"0" * 50_000_000, zipfile.ZIP_DEFLATED))
@example(zipped("archive/data.pkl", b"cos\nsystem\n(S'touch /tmp/ran'\ntR.", zipfile.ZIP_STORED))
@example(b"cos\nsystem\n(S'touch /tmp/ran'\ntR.")
@example(b"\x80\x02]q\xff\xff\xff\x7f.")
def test_other_bytes_are_passed_over(data: bytes) -> None:
    assert read_back(data)[1]
    assert not Path("/tmp/ran").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(st.data())
def test_changed_bytes_are_passed_over_or_load(data: st.DataObject) -> None:
    content = bytearray(packed(good()))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    read_back(bytes(content))


RECORDS = st.dictionaries(
    st.sampled_from(["seen", "bytes", "sha256", "measure", "value", "x"]),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
        st.lists(st.integers(), max_size=2),
        st.sampled_from([10**400, -1, "8"]),
    ),
)  # fmt: skip


@pytest.mark.slow
@given(RECORDS)
def test_odd_records_are_passed_over(record: dict[str, Any]) -> None:
    _, said = read_back(packed(good()), record)
    assert not said or len(said) == 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / best_checkpoint.BEST
        folder.mkdir()
        saved_as(folder, 8, b"x", {"measure": "fd", "value": 1.0})
        saved_as(folder, 9, b"y", record)
        assert best_checkpoint.best(Path(name)) is not None
