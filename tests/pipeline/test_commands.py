"""The commands beyond the stages, as a person types them."""

import json
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, load_index, read_jsonl
from pipeline.demo.shells import draw
from tests.helpers.commands import run_pipeline as run
from tests.helpers.static_site import served

GALLERIES = Path(__file__).parents[1] / "data" / "galleries"
SITES = Path(__file__).parent / "sites"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(6):
        path = folder / f"family-{index % 2}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        draw(1, index, 96).save(path)
    return folder


@pytest.fixture
def project(pictures: Path, tmp_path: Path) -> Path:
    """A project with the data set `mine`, made from a folder of local images."""
    (tmp_path / "mine.toml").write_text(
        f'[source]\nkind = "folder"\nstart = ["{pictures}"]\n'
        '[select]\nmin_side = 16\nnear_duplicate_bits = "off"\n'
        "[shards]\nresolution = 32\nsamples_per_shard = 4\nclass_label = 0\n"
    )
    made = run(tmp_path, "run", "mine.toml")
    assert made.returncode == 0, made.stderr
    return tmp_path


def test_verify_finds_damage_and_repairs_it(project: Path) -> None:
    assert run(project, "verify", "mine.toml").returncode == 0
    _, shards = load_index(project / "manifests" / "mine")
    whole = Path(shards[0]).read_bytes()
    Path(shards[0]).write_bytes(whole[:1000] + b"\xff" + whole[1001:])
    found = run(project, "verify", "mine.toml")
    assert found.returncode == 1
    assert f"{Path(shards[0]).stem}: its sha256 is not" in found.stderr
    assert run(project, "verify", "mine.toml", "--repair").returncode == 0
    assert Path(shards[0]).read_bytes() == whole


def test_a_variant_is_a_data_set_beside(project: Path) -> None:
    result = run(project, "shard", "mine.toml", "--variant", "16", "--set", "shards.resolution=16")
    assert result.returncode == 0, result.stderr
    assert load_index(project / "manifests" / "mine-16")[0].resolution == (16, 16)
    assert load_index(project / "manifests" / "mine")[0].resolution == (32, 32)


def test_forget_removes_an_image_for_good(project: Path) -> None:
    dataset = DatasetPaths("mine", project)
    key = next(read_jsonl(dataset.selection))["key"]
    result = run(project, "forget", "mine.toml", "--key", key, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 1
    assert run(project, "run", "mine.toml").returncode == 0
    assert load_index(dataset.manifest_dir)[0].nsamples == 5
    assert key not in [row["key"] for row in read_jsonl(dataset.selection)]


def test_export_import_and_back(project: Path) -> None:
    out = project / "out"
    assert run(project, "export", "mine.toml", str(out)).returncode == 0
    assert len(list(out.glob("*/*.*"))) >= 6
    again = run(project, "export", "mine.toml", str(out))
    assert again.returncode == 2
    assert "exists already; " in again.stderr
    twice = run(project, "export", "mine.toml", "one", "--out", "two")
    assert (twice.returncode, "two outputs, one and two" in twice.stderr) == (2, True)
    address = run(project, "import", "mine.toml", "https://example.org/a.tar")
    assert (address.returncode, "download it" in address.stderr) == (2, True)
    for words, name in (((), "mine-imagefolder"), (("--out", "named"), "named")):
        assert run(project, "export", *words, "mine.toml").returncode == 0
        assert len(list((project / name).glob("*/*.*"))) >= 6
    (project / "copy.toml").write_text((project / "mine.toml").read_text())
    assert run(project, "import", "copy.toml", str(out)).returncode == 0
    for stage in ("select", "shard"):
        assert run(project, stage, "copy.toml").returncode == 0
    assert load_index(project / "manifests" / "copy")[0].nsamples == 6


def test_preview_names_its_page(project: Path) -> None:
    result = run(project, "select", "mine.toml", "--preview")
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).read_text().startswith("<!doctype html>")


def test_a_recipe_is_checked_and_proposed_and_its_manifest_exchanged(tmp_path: Path) -> None:
    with served(GALLERIES / "sigal") as url:
        page = f"{url}/shirts/index.html"
        check = run(tmp_path, "check-recipe", str(SITES / "sigal.toml"), "--url", page)
        assert check.returncode == 0, check.stderr
        assert "images on" in check.stdout
        proposed = run(tmp_path, "new-recipe", f"{url}/index.html", "--allow-private")
        assert proposed.returncode == 0, proposed.stderr
        assert f"reading {url}/" in proposed.stderr
        (tmp_path / "new.toml").write_text(proposed.stdout)
        allow = ("--set", "politeness.allow_private=true", "--set", "politeness.rate=100")
        crawled = run(tmp_path, "crawl", "new.toml", *allow)
        assert crawled.returncode == 0, crawled.stderr
    urls = [row["url"] for row in read_jsonl(DatasetPaths("new", tmp_path).url_manifest)]
    assert urls
    assert all("/original/" in url for url in urls)

    out = run(tmp_path, "export-manifest", "new.toml", "urls.csv")
    assert out.stdout == f"{len(urls)} rows in urls.csv\n"
    (tmp_path / "other.toml").write_text(proposed.stdout)
    came = run(tmp_path, "import-manifest", "other.toml", "urls.csv")
    assert came.stdout.startswith(f"{len(urls)} of {len(urls)} rows are new")
    assert came.returncode == 0
    assert [row["url"] for row in read_jsonl(DatasetPaths("other", tmp_path).url_manifest)] == urls
    (tmp_path / "some.csv").write_text("url\nnonsense\n")
    came = run(tmp_path, "import-manifest", "other.toml", "some.csv")
    assert (came.returncode, "skipped: not_http 1" in came.stdout) == (1, True)


def test_a_recipe_without_lines_imports_and_each_next_step_is_named(
    pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text("")
    for name in ("curate", "select"):
        said = run(tmp_path, name, "mine.toml").stderr
        assert "originals: no images yet; run download, or import to add images" in said
    one = pictures / "family-0/0.png"
    imported = run(tmp_path, "import", "mine.toml", str(one))
    assert imported.returncode == 0, imported.stderr
    assert "1 new image not in the shards yet; run: " in imported.stderr
    none = run(tmp_path, "select", "mine.toml", "--set", "select.min_side=999")
    assert "no image is kept: small 1; to see what each limit rejects, run: " in none.stderr
    crawled = run(tmp_path, "crawl", "mine.toml")
    assert crawled.returncode == 2
    assert "source.start: missing; name what to crawl" in crawled.stderr


def test_the_next_command_names_the_folder_of_the_project(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("")
    root = tmp_path / "a folder"
    for words, option in (((), ""), (("--root", str(root)), f" --root '{root}'")):
        said = run(tmp_path, "import", "mine.toml", str(pictures), *words).stderr
        assert f"run: python -m pipeline select mine.toml{option} && " in said
