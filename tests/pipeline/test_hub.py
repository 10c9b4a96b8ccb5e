"""Uploads of a dataset to a stand-in for the Hugging Face Hub."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.contract import UserError, load_index
from pipeline.hub import HubRepo, front_matter, hub_license, license_warnings
from pipeline.select.stage import select
from pipeline.shards.exports import staging_folder
from pipeline.shards.publish import publish
from pipeline.shards.stage import shard
from tests.helpers.commands import run_pipeline as run
from tests.helpers.hub_server import TOKEN, HubServer

KEY = ("dataset", "ann/shells")
# the package's own call of its HTTP library
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def made(shop: Any, log: Any) -> Any:
    """14 samples of two classes in two shards."""
    shop.add(shop.served(8, labels=("Conus",)))
    shop.add(shop.served(6, 20, labels=("Bursa/b",), license=""))
    make(shop, log)
    return shop.dataset


def make(shop: Any, log: Any, **options: Any) -> None:
    recipe = shop.recipe(class_label=0, **options)
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)


def test_the_shards_are_a_dataset_on_the_hub(hub: HubServer, made: Any, log: Any) -> None:
    said: list[str] = []
    result = publish(made, "huggingface-webdataset", HubRepo("ann/shells", "dataset"), log,
                     said.append)  # fmt: skip
    assert (result.path, result.samples) == (f"{hub.url}/datasets/ann/shells", 14)
    repo = hub.repos[KEY]
    assert repo.private
    assert [repo.files[f"data/train-0000{n}-of-00002.tar"] for n in (0, 1)] == [
        Path(path).read_bytes() for path in load_index(made.manifest_dir)[1]
    ]
    head = yaml.safe_load(repo.files["README.md"].decode().split("---\n")[1])
    assert head["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.tar"}]}
    ]
    assert head["license"] == "other"
    assert head["license_details"] == "CC0 (8 images); not stated (6 images)"
    assert repo.files.keys() > {"contact.jpg", "mean.png"}
    text = "\n".join(said)
    assert "warning: shells: 6 of 14 images state no licence" in text
    assert (
        f"uploading 5 files, {total(repo)}, to {hub.url}/datasets/ann/shells (new, private" in text
    )
    assert "  data/train-00000-of-00002.tar  " in text
    assert TOKEN not in text
    assert not staging_folder(made).exists()


def total(repo: Any) -> str:
    from pipeline.contract import format_bytes

    return format_bytes(sum(map(len, repo.files.values())))


def test_a_second_upload_sends_only_what_changed_and_deletes_what_is_gone(
    hub: HubServer, made: Any, shop: Any, log: Any
) -> None:
    repo, said = HubRepo("ann/shells", "dataset", public=True), list[str]()
    publish(made, "huggingface-webdataset", repo, log, said.append)
    assert len(hub.puts) == 2
    publish(made, "huggingface-webdataset", repo, log, said.append)
    assert len(hub.puts) == 2
    assert any("(exists, public)" in line for line in said)
    make(shop, log, samples_per_shard=100)
    publish(made, "huggingface-webdataset", repo, log, said.append)
    tars = [name for name in hub.repos[KEY].files if name.endswith(".tar")]
    assert tars == ["data/train-00000-of-00001.tar"]


def test_a_killed_upload_continues(hub: HubServer, made: Any, shop: Any) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> int:
        reached.set()
        go_on.wait(60)
        return 503

    hub.on_commit = wait
    recipe = shop.root / "shells.toml"
    command = [sys.executable, "-m", "pipeline", "export", str(recipe), "--hub", "ann/shells",
               "--root", str(shop.root)]  # fmt: skip
    recipe.write_text(RECIPE)
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(shop.root / "hf")}
    with subprocess.Popen(command, env=environment) as process:
        committing = reached.wait(120)
        process.kill()
    go_on.set()
    assert committing
    assert (len(hub.puts), hub.repos[KEY].commits) == (2, 0)
    hub.on_commit = lambda: None
    done = run(shop.root, "export", str(recipe), "--hub", "ann/shells")
    assert done.returncode == 0, done.stderr
    assert len(hub.puts) == 2
    assert sum(1 for name in hub.repos[KEY].files if name.endswith(".tar")) == 2
    assert not staging_folder(made).exists()


RECIPE = """
[source]
kind = "folder"
start = ["nowhere"]
"""


@pytest.mark.parametrize(
    ("repo", "reason"),
    [
        ("eve/shells", "the account of the token may not write there; check the name"),
        ("ann/locked", "the account of the token may not write there"),
        ("ann/broken", "the Hub answered 500"),
    ],
)
def test_failures_are_one_line(hub: HubServer, made: Any, log: Any, repo: str, reason: str) -> None:
    hub.readonly.add("ann/locked")
    if repo == "ann/broken":
        hub.on_commit = lambda: 500
    with pytest.raises(UserError) as caught:
        publish(made, "huggingface-webdataset", HubRepo(repo, "dataset"), log, print)
    assert str(caught.value).startswith(f"{hub.url}/datasets/{repo}: {reason}")
    assert TOKEN not in str(caught.value)


def test_an_unreachable_hub_a_wrong_and_a_missing_token_are_one_line(
    hub: HubServer, made: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failure() -> str:
        with pytest.raises(UserError) as caught:
            publish(made, "huggingface-webdataset", HubRepo("ann/x", "dataset"), log, print)
        assert not staging_folder(made).exists()
        return str(caught.value)

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "the Hub does not accept the token; run `hf auth login`" in failure()
    assert "hf_secret" not in failure()
    monkeypatch.delenv("HF_TOKEN")
    asked = len(hub.asked)
    assert failure() == "--hub ann/x: no token; set HF_TOKEN or run `hf auth login`"
    assert len(hub.asked) == asked
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9/datasets/ann/x: the upload failed (" in failure()


def test_shards_without_a_selection_have_an_unknown_licence(
    hub: HubServer, made: Any, log: Any
) -> None:
    made.selection.unlink()
    publish(made, "huggingface-webdataset", HubRepo("ann/shells", "dataset"), log, print)
    head = yaml.safe_load(hub.repos[KEY].files["README.md"].decode().split("---\n")[1])
    assert head["license"] == "unknown"


def test_options_that_do_not_fit_are_one_line(shop: Any) -> None:
    recipe = shop.root / "shells.toml"
    recipe.write_text(RECIPE)
    for words, reason in (
        (["--hub", "shells"], "--hub shells: expected USER/NAME"),
        (["--hub", "../x/y"], "expected USER/NAME"),
        (["out", "--public"], "--public: only with --hub"),
        (["out", "--hub", "ann/x"], "give either a folder for the export or --hub"),
        (["--hub", "ann/x", "--format", "nvlabs"], "--format nvlabs: --hub needs one of"),
    ):
        done = run(shop.root, "export", str(recipe), *words)
        assert done.returncode == 2, words
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


def test_licences_become_the_hubs_metadata() -> None:
    assert hub_license({"CC0": 3, "cc0 1.0": 1}) == {"license": "cc0-1.0"}
    assert hub_license({"CC BY-SA 4.0": 3}) == {"license": "cc-by-sa-4.0"}
    assert hub_license({"": 3}) == hub_license({}) == {"license": "unknown"}
    assert hub_license({"by hand": 3}) == {
        "license": "other", "license_name": "custom", "license_details": "by hand (3 images)"
    }  # fmt: skip
    mixed = hub_license({f"l{n}": n + 1 for n in range(30)})
    assert mixed["license_details"].startswith("l29 (30 images); l28")
    assert mixed["license_details"].endswith("; and 10 more")
    assert license_warnings("x", {"CC0": 3}, 0) == []
    assert len(license_warnings("x", {"": 3}, 2)) == 2
    odd = {"license_details": 'a: "b"\n- # é'}
    assert yaml.safe_load(front_matter(odd).split("---\n")[1]) == odd


def test_a_missing_package_is_one_line(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (shop.root / "shells.toml").write_text(RECIPE)
    done = run(shop.root, "export", str(shop.root / "shells.toml"), "--hub", "ann/x")
    assert done.returncode == 2
    assert done.stderr == "error: --hub: needs pip install 'shellgan[hf]'\n"
