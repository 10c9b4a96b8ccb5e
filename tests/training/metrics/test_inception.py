"""The standard Inception-v3 from a file of weights: torch-fidelity's own features, no code run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as theirs

from pipeline.contract import UserError
from training.metrics.feature_networks import load_inception
from training.metrics.suite import full_name


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with random weights in the layout of the published one."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(theirs.torch, "load", lambda *_, **__: {})
        network = theirs.FeatureExtractorInceptionV3("random", ["2048"], "none")
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_features_and_logits_are_torch_fidelitys(weights: Path) -> None:
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    ours = load_inception(weights, torch.device("cpu"))
    network = theirs.FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(weights))
    features, logits = network(images)
    found = ours.features(images)
    assert found.shape == (2, 2048)
    np.testing.assert_allclose(found, features.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.logits(found), logits.numpy(), rtol=1e-4, atol=1e-5)
    gray = ours.features(images[:1, :1])
    np.testing.assert_allclose(gray, ours.features(images[:1, :1].repeat(1, 3, 1, 1)))
    assert ours.identity.startswith("inception-")
    assert full_name("fd", ours.name) == "fid"


@pytest.mark.parametrize("content", [b"", b"not weights", b"cos\nsystem\n(S'true'\ntR.", "other"])
def test_another_file_is_one_line(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(
        UserError, match=r"weights\.pth: not the weights of the FID Inception-v3"
    ) as got:
        load_inception(path, torch.device("cpu"))
    assert "weights_only" not in str(got.value)  # no advice to load the file without protection
    assert "trust" not in str(got.value)
    with pytest.raises(UserError, match="No such file"):
        load_inception(tmp_path / "none.pth", torch.device("cpu"))
