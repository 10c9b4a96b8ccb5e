"""Classifiers of torchvision as feature networks, with random weights in the place of theirs."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from pipeline.contract import UserError
from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import fit_here, metrics
from training.evaluate import main as evaluate
from training.metrics import torchvision_networks
from training.metrics.feature_networks import load_feature_network
from training.metrics.suite import full_name

CPU = torch.device("cpu")
SMALL = "shufflenet_v2_x0_5"
FEATURES = {SMALL: "mean", "mobilenet_v3_small": "classifier.1", "resnet18": "flatten"}
"""Models, and the node of their graph before the last linear layer."""


def weights_file(model: str) -> Path:
    url = urlparse(models.get_model_weights(model).DEFAULT.url)
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url.path).name


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, and no way to download any."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torchvision_networks.load_torchvision_network.cache_clear()

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    weights_file(SMALL).parent.mkdir(parents=True)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("model", FEATURES)
def test_features_are_those_before_the_last_layer(hub: Path, model: str) -> None:
    torch.manual_seed(0)
    whole = models.get_model(model).eval()
    torch.save(whole.state_dict(), weights_file(model))
    images = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8)
    before = torch.random.get_rng_state()
    network = load_feature_network(f"torchvision:{model}", CPU)
    assert torch.equal(before, torch.random.get_rng_state())

    prepared = models.get_model_weights(model).DEFAULT.transforms()(images)
    assert prepared.shape == (3, 3, 224, 224)
    with torch.inference_mode():
        [expected] = create_feature_extractor(whole, [FEATURES[model]])(prepared).values()
        scores = whole(prepared)
    found = network.features(images)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.logits(found), scores.numpy(), rtol=1e-4, atol=1e-5)
    gray = images[:, :1]
    np.testing.assert_array_equal(network.features(gray), network.features(gray.repeat(1, 3, 1, 1)))
    assert full_name("fd", network.name) == f"fd_torchvision_{model}"
    assert network.identity.startswith(f"torchvision_{model}-IMAGENET1K_V")


def test_inception_of_torchvision_is_not_called_fid() -> None:
    assert full_name("fd", "torchvision_inception_v3") == "fd_torchvision_inception_v3"


@pytest.mark.parametrize(
    ("features", "content", "said"),
    [
        ("torchvision:resnet", None, "torchvision:resnet: unknown; choose from alexnet, "),
        ("clip:large", None, "clip:large: unknown; use efficientnet_lite0 or torchvision:MODEL"),
        (f"torchvision:{SMALL}", None, "cannot be downloaded (<urlopen error no route to host>)"),
        (f"torchvision:{SMALL}", b"", f"not the weights of {SMALL}"),
        (f"torchvision:{SMALL}", b"<html>", f"not the weights of {SMALL}"),
        (f"torchvision:{SMALL}", print, f"not the weights of {SMALL}"),  # a pickle of code
        (f"torchvision:{SMALL}", {"a": torch.zeros(1)}, f"not the weights of {SMALL}"),
    ],
)
def test_a_network_that_is_not_available_is_one_line(
    hub: Path, features: str, content: object, said: str
) -> None:
    if isinstance(content, bytes):
        weights_file(SMALL).write_bytes(content)
    elif content is not None:
        torch.save(content, weights_file(SMALL))
    with pytest.raises(UserError) as error:
        load_feature_network(features, CPU)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "trust" not in str(error.value)  # torch advises to load such a file without protection


def test_a_network_without_a_linear_layer_is_refused(hub: Path) -> None:
    torch.save(models.get_model("squeezenet1_1").state_dict(), weights_file("squeezenet1_1"))
    with pytest.raises(UserError, match="squeezenet1_1: has no linear layer"):
        load_feature_network("torchvision:squeezenet1_1", CPU)


def test_two_networks_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate(["run", "--features", "torchvision:resnet18", "--inception", "file"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_run_is_evaluated_by_the_network_of_its_option(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = models.get_model(SMALL).train()
    for _ in range(30):  # sets the running statistics, without which the features vanish
        network(torch.randn(4, 3, 64, 64))
    torch.save(network.state_dict(), weights_file(SMALL))
    shards = SmallShards(tmp_path / "set")
    features = f"torchvision:{SMALL}"
    options = ("--eval-kimg", "0.2", "--eval-samples", "50", "--evaluate.features", features)
    assert fit_here("small", shards, *options) == 0
    name = f"fd_torchvision_{SMALL}"
    rows = metrics(tmp_path / "runs" / "small")
    assert [row["seen"] for row in rows if name in row] == [200, 400]
    capsys.readouterr()
    same = ("--samples", "50", "--features", features, "--device", "cpu", "--json")
    assert evaluate(["small@best", *same]) == 0
    [told] = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    best = min(row[name] for row in rows if name in row)
    assert told["metrics"][name]["value"] == pytest.approx(best, rel=1e-5, abs=1e-8)
    assert best > 1e-6
    assert fit_here("other", shards, "--evaluate.features", "fid") == 2
    assert "evaluate.features" in capsys.readouterr().err
