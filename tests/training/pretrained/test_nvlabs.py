"""Weights of StyleGAN2-ADA's pickles: by name into our networks, and no code is run."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.contract import UserError, parse_config
from tests.helpers.fake_nvlabs import write_pickle
from training.config import Config
from training.networks import ImageShape, build_discriminator, build_generator
from training.options.architectures import StyleGan2Discriminator, StyleGan2Generator
from training.pretrained.finetune import WeightMismatch, load_initial_weights
from training.pretrained.inference import load_generator
from training.pretrained.nvlabs import (
    NvlabsPickle,
    module_weights,
    read_nvlabs_pickle,
    submodules,
)
from training.pretrained.pickles import PickledObject
from training.pretrained.published import describe
from training.state import new_state

CPU = torch.device("cpu")
SHAPE = ImageShape(16, 16, 3)
SMALL = {"channel_base": 128, "channel_max": 12}


def tensors(network: torch.nn.Module) -> dict[str, Any]:
    """Names, shapes and roles of a network's tensors, for the stand-in to make."""
    named = {name: [list(value.shape), "parameter"] for name, value in network.named_parameters()}
    return named | {name: [list(value.shape), "buffer"] for name, value in network.named_buffers()}


def write(path: Path, described: dict[str, Any], protocol: int = 3) -> Path:
    """A pickle of networks with those tensors, with the published names."""
    write_pickle(path, described, protocol)
    return path


def described(classes: int = 0) -> dict[str, Any]:
    shape = ImageShape(16, 16, 3, classes)
    table = StyleGan2Generator(
        z_dim=20, w_dim=24, mapping_layers=3, condition="embedding" if classes else "none", **SMALL
    )
    discriminator = StyleGan2Discriminator(condition="projection" if classes else "none", **SMALL)
    generator = tensors(build_generator(table, shape))
    return {
        "G": generator,
        "G_ema": generator,
        "D": tensors(build_discriminator(discriminator, shape)),
    }


@pytest.mark.parametrize(("protocol", "classes"), [(3, 0), (4, 5)])
def test_weights_come_in_one_to_one(tmp_path: Path, protocol: int, classes: int) -> None:
    wanted = described(classes)
    published = read_nvlabs_pickle(write(tmp_path / "net.pkl", wanted, protocol))
    for name, expected in wanted.items():
        found = published.weights(name)
        assert {key: list(value.shape) for key, value in found.items()} == {
            key: shape for key, (shape, _) in expected.items()
        }
    found = describe(published)
    table, shape = found.options, found.shape
    assert (table.z_dim, table.w_dim, table.mapping_layers) == (20, 24, 3)
    assert (table.mapping_lr_multiplier, table.conv_clamp) == (0.02, 256)
    assert table.resample_filter == (1, 3, 3, 1)
    assert shape == ImageShape(16, 16, 3, classes)
    trained = load_generator(str(tmp_path / "net.pkl"), CPU)
    back = trained.generator.state_dict()  # what an export writes: the published names
    given = published.weights("G_ema")
    assert back.keys() == given.keys()
    assert all(torch.equal(back[key], given[key]) for key in back)
    assert trained.generator(torch.randn(2, 20), torch.zeros(2, dtype=torch.int64)).isfinite().all()


def test_a_training_begins_with_them(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl", described())
    networks = {"name": "stylegan2", **SMALL}
    config = parse_config(
        Config,
        {
            "generator": {**networks, "z_dim": 20, "w_dim": 24, "mapping_layers": 3},
            "discriminator": networks,
        },
        "test",
    )  # fmt: skip
    state = new_state(config, SHAPE, CPU)
    assert load_initial_weights(state, str(path), CPU) == WeightMismatch((), ())
    given = read_nvlabs_pickle(path).weights("D")
    assert all(
        torch.equal(value, given[key]) for key, value in state.discriminator.state_dict().items()
    )


def test_a_training_may_begin_without_the_discriminator(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl", {"G_ema": described()["G_ema"]})
    table = {"name": "stylegan2", **SMALL}
    config = parse_config(
        Config,
        {"generator": {**table, "z_dim": 20, "w_dim": 24, "mapping_layers": 3}}, "test",
    )  # fmt: skip
    state = new_state(config, SHAPE, CPU)
    assert load_initial_weights(state, str(path), CPU) == WeightMismatch(("discriminator",), ())


@pytest.mark.parametrize("layers", [2, 8])
def test_a_mapping_of_another_depth_is_refused(tmp_path: Path, layers: int) -> None:
    path = write(tmp_path / "net.pkl", described())
    table = {"name": "stylegan2", **SMALL, "z_dim": 20, "w_dim": 24, "mapping_layers": layers}
    state = new_state(parse_config(Config, {"generator": table}, "test"), SHAPE, CPU)
    with pytest.raises(UserError, match=r"^init_from: .*net\.pkl .*--generator\.mapping_layers 3"):
        load_initial_weights(state, str(path), CPU)


def test_what_has_no_place_is_told_and_counted(tmp_path: Path) -> None:
    """Weights of 16 px for a training at 8 px."""
    path = write(tmp_path / "net.pkl", {"G_ema": described()["G_ema"]})
    table = {"name": "stylegan2", **SMALL, "z_dim": 20, "w_dim": 24, "mapping_layers": 3}
    state = new_state(parse_config(Config, {"generator": table}, "test"), ImageShape(8, 8, 3), CPU)
    taken = load_initial_weights(state, str(path), CPU)
    given = read_nvlabs_pickle(path).weights("G_ema")
    larger = [key for key in given if key.startswith("synthesis.b16.")]
    assert len(larger) > 4
    assert set(taken.unused) == {
        f"{name}.{key}" for name in ("generator", "average") for key in larger
    }
    assert taken.summary() == (
        "; missing in it: discriminator; not used: "
        f"{', '.join(taken.unused[:4])} and {2 * len(larger) - 4} more"
    )


class Hostile:
    def __init__(self, function: Any, *given: Any) -> None:
        self.call = function, given

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.system, "touch hit"), "posix.system"),
        ((eval, "open('hit', 'w')"), "builtins.eval"),
        ((getattr, Path, "unlink"), "builtins.getattr"),
        ((torch.load, "x"), "torch.serialization.load"),
        ((pickle.loads, b"cos\nsystem\n(S'touch hit'\ntR."), "_pickle.loads"),
        ((subprocess.Popen, ["touch", "hit"]), "subprocess.Popen"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_pickle_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[Any, ...], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Hostile(*call)}, protocol=3))
    with pytest.raises(UserError) as caught:
        read_nvlabs_pickle(path)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hit").exists()


def test_hostile_bytes_inside_of_a_storage_are_refused(tmp_path: Path) -> None:
    inner = pickle.dumps(Hostile(os.system, f"touch {tmp_path}/hit"), protocol=2)
    path = tmp_path / "net.pkl"
    path.write_bytes(
        pickle.dumps({"G_ema": Hostile(torch.storage._load_from_bytes, inner)}, protocol=3)
    )
    with pytest.raises(UserError, match="refused"):
        read_nvlabs_pickle(path)
    assert not (tmp_path / "hit").exists()


def test_a_compressed_storage_is_refused(tmp_path: Path) -> None:
    """A storage of 1 MB in an archive of a few kB."""
    whole, small = io.BytesIO(), io.BytesIO()
    torch.save(torch.zeros(1 << 20, dtype=torch.uint8).untyped_storage(), whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
    path = tmp_path / "net.pkl"
    storage = Hostile(torch.storage._load_from_bytes, small.getvalue())
    path.write_bytes(pickle.dumps({"G_ema": storage}))
    with pytest.raises(UserError, match=r"refused: a storage: its parts are larger than the file"):
        read_nvlabs_pickle(path)


def test_a_storage_of_many_tensors_is_refused(tmp_path: Path) -> None:
    """Each tensor becomes a copy of its own."""
    whole = torch.zeros(10_000).untyped_storage()
    storage = torch.storage.TypedStorage(wrap_storage=whole, dtype=torch.float32, _internal=True)
    rebuild = torch.zeros(1).__reduce_ex__(2)[0]
    views = [Hostile(rebuild, storage, 0, (10_000,), (1,), False, {}) for _ in range(9)]
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps({"G_ema": views}))
    with pytest.raises(UserError, match=r"refused: its tensors are larger than the file"):
        read_nvlabs_pickle(path)


@pytest.mark.parametrize("names", [("a", "b"), ("a" * 200,)], ids=["wide", "deep"])
def test_a_module_in_very_many_places_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    module = PickledObject("Layer", {"_parameters": {"weight": torch.zeros(1)}})
    for _ in range(20):
        module = PickledObject("Layer", {"_modules": dict.fromkeys(names, module)})
    with pytest.raises(UserError, match=r"net\.pkl: G is not a network"):
        NvlabsPickle(tmp_path / "net.pkl", {"G": module}).weights("G")
    with pytest.raises(ValueError, match="too many or too deeply nested"):
        list(submodules(module))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "it numbers an object 2147483647 of at most 2"),
        (b"\x80\x02}p99999999\n.", "it numbers an object 99999999 of at most 2"),
        (b"\x80\x04\x95" + b"\xff" * 7 + b"\x00}.", "a frame of 72057594037927935 bytes in 13"),
    ],
)
def test_a_number_that_asks_for_much_memory_is_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"net\.pkl: refused: {said}"):
        read_nvlabs_pickle(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", pickle.dumps({"G_ema": 1}), pickle.dumps([1])]
)
def test_something_else_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_nvlabs_pickle(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_cut_pickle_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl", {"G_ema": described()["G_ema"]})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"net\.pkl"):
        read_nvlabs_pickle(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_nvlabs_pickle(tmp_path / "none.pkl")


def test_another_generator_is_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl", {"G_ema": {"layers.0.weight": [[3, 3], "parameter"]}})
    published = read_nvlabs_pickle(path)
    assert module_weights(published.networks["G_ema"]).keys() == {"layers.0.weight"}
    with pytest.raises(UserError, match="does not have the structure"):
        describe(published)
