"""Select obeys the decisions of `curated.jsonl`, and no decision changes another image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import DatasetPaths, JsonlAppender, UserError, image_key, read_jsonl
from pipeline.forgotten import forgotten_path
from pipeline.remote.mirror import pull, push
from pipeline.select.curation import Decision, read_curation, record_decisions
from pipeline.select.preview import preview
from pipeline.select.stage import select


def decide(shop: Any, **decisions: str) -> None:
    """Record decisions: `decide(shop, reject=key)`."""
    record_decisions(shop.dataset, [Decision(key, name) for name, key in decisions.items()])


def outcome(shop: Any) -> dict[str, str]:
    kept = {line["key"]: "kept" for line in read_jsonl(shop.dataset.selection)}
    rejected = {line["key"]: line["reason"] for line in read_jsonl(shop.dataset.rejections)}
    assert not kept.keys() & rejected.keys()
    return kept | rejected


def test_decisions_override_the_limits_and_are_counted(shop: Any, log: Any) -> None:
    good, bad, small, shape, left = [
        *shop.served(4),
        shop.Served(shop.encoded(shop.picture(9, (60, 40))), "small.jpg"),
    ]
    shop.add([good, bad, small, shape, left])
    recipe = shop.recipe({"min_side": 64})
    decide(shop, reject=bad.key, keep=left.key)
    result = select(recipe, shop.dataset, log)
    assert (result.kept, result.rejected) == (4, {"curated": 1})
    assert outcome(shop) == {
        one.key: "kept" for one in (good, small, shape, left)
    } | {bad.key: "curated"}  # fmt: skip
    decide(shop, undo=left.key)
    decide(shop, keep=bad.key)  # the last line counts
    assert select(recipe, shop.dataset, log).rejected == {"small": 1}
    assert outcome(shop)[bad.key] == "kept"


def test_decisions_survive_a_new_crawl(shop: Any, log: Any) -> None:
    images = shop.served(3)
    shop.add(images)
    decide(shop, reject=images[1].key)
    select(shop.recipe(), shop.dataset, log)
    before = shop.dataset.curation.read_bytes()
    for path in [shop.dataset.url_manifest, *shop.dataset.originals_dir.iterdir()]:
        path.unlink()
    shop.add([*images, *shop.served(2, start=10)])  # the same URLs, and new ones
    assert select(shop.recipe(), shop.dataset, log).rejected == {"curated": 1}
    assert outcome(shop)[images[1].key] == "curated"
    assert shop.dataset.curation.read_bytes() == before


def test_a_rejected_image_does_not_bring_its_copies_back(shop: Any, log: Any) -> None:
    image = shop.picture(1, (240, 180))
    large, copy = (
        shop.Served(shop.encoded(image.resize(size)), name)
        for size, name in (((240, 180), "large.jpg"), ((120, 90), "copy.jpg"))
    )
    shop.add([large, copy, *shop.served(2, start=5)])
    decide(shop, reject=large.key)
    select(shop.recipe(), shop.dataset, log)
    assert (outcome(shop)[large.key], outcome(shop)[copy.key]) == ("curated", "near_duplicate")
    decide(shop, keep=copy.key)
    select(shop.recipe(), shop.dataset, log)
    assert (outcome(shop)[large.key], outcome(shop)[copy.key]) == ("curated", "kept")


def test_keep_does_not_override_what_no_look_can_decide(shop: Any, log: Any) -> None:
    labels = ("Conus",)
    forgotten, mine = (
        shop.Served(shop.encoded(shop.picture(n)), f"{n}.jpg", labels, license)
        for n, license in ((1, "CC0"), (2, "All mine"))
    )
    unlabelled = shop.Served(shop.encoded(shop.picture(3, (60, 40))), "3.jpg")
    unlisted = shop.served(1, start=50, labels=labels)
    shop.add([forgotten, mine, unlabelled, *shop.served(2, start=9, labels=labels)])
    shop.add(unlisted, listed=False)
    with JsonlAppender(forgotten_path(shop.dataset)) as file:
        file.append({"key": forgotten.key})
    locked = {
        forgotten.key: "forgotten", mine.key: "license", unlisted[0].key: "not_in_manifest",
        unlabelled.key: "no_class_label",
    }  # fmt: skip
    for key in locked:
        decide(shop, keep=key)
    select(shop.recipe({"licenses": ["cc0"], "min_side": 64}, class_label=0), shop.dataset, log)
    assert {key: outcome(shop)[key] for key in locked} == locked


def test_of_two_originals_with_one_key_one_is_kept(shop: Any, log: Any) -> None:
    images = shop.served(2)
    shop.add(images)
    shop.add(images[:1], listed=False)
    decide(shop, keep=images[0].key)
    assert select(shop.recipe(), shop.dataset, log).kept == 2


def test_a_torn_line_is_dropped_and_a_damaged_one_is_named(shop: Any) -> None:
    key = image_key("https://shells.example/1")
    decide(shop, reject=key)
    with shop.dataset.curation.open("ab") as file:
        file.write(b'{"version": 1, "key": "00')
    assert read_curation(shop.dataset).by_key.keys() == {key}
    decide(shop, undo=key)
    assert not read_curation(shop.dataset).by_key
    for row, why in (
        ({"key": key, "decision": "maybe"}, "decision"),
        ({"key": "x", "decision": "keep"}, "key"),
        ({"version": 2, "key": key, "decision": "keep"}, "version"),
    ):
        shop.dataset.curation.write_text(json.dumps(row) + "\n")
        with pytest.raises(UserError, match=rf"curated.jsonl:1: {why}"):
            read_curation(shop.dataset)


def test_a_decision_written_by_hand_needs_no_final_newline(shop: Any, log: Any) -> None:
    images = shop.served(4)
    shop.add(images)
    line = json.dumps({"version": 1, "key": images[2].key, "decision": "reject"})
    shop.dataset.curation.write_text(line)
    assert select(shop.recipe(), shop.dataset, log).kept == 3
    decide(shop, reject=images[1].key)
    assert read_curation(shop.dataset).by_key.keys() == {images[1].key, images[2].key}
    assert select(shop.recipe(), shop.dataset, log).kept == 2


def test_the_preview_shows_what_was_rejected_by_eye(shop: Any, log: Any) -> None:
    images = shop.served(4)
    shop.add(images)
    decide(shop, reject=images[2].key)
    page = preview(shop.recipe(), shop.dataset, log).read_text()
    section = page.partition('id="curated"')[2].partition("</section>")[0]
    assert images[2].key in section
    assert "rejected by eye" in section


def test_the_latest_decision_counts_whatever_the_order_of_the_lines(shop: Any) -> None:
    key = image_key("https://shells.example/1")
    shop.dataset.curation.parent.mkdir(parents=True)

    def counts(*lines: tuple[str, str | None]) -> str:
        rows = [{"key": key, "decision": name, "ts": ts} for name, ts in lines]
        shop.dataset.curation.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = read_curation(shop.dataset).by_key.get(key)
        return found.decision if found else ""

    monday, tuesday = "2026-01-05T12:00:00.000001Z", "2026-01-06T12:00:00Z"
    assert counts(("reject", tuesday), ("keep", monday)) == "reject"
    assert counts(("undo", tuesday), ("keep", monday)) == ""
    assert counts(("reject", tuesday), ("keep", tuesday)) == "keep"
    assert counts(("reject", tuesday), ("keep", None), ("undo", monday)) == "keep"
    assert counts(("reject", tuesday), ("keep", "yesterday")) == "keep"


def test_an_older_decision_of_another_machine_does_not_win(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    one, other = (DatasetPaths("shells", tmp_path / name, store) for name in ("one", "other"))
    key = image_key("https://shells.example/1")
    record_decisions(one, [Decision(key, "keep")])
    record_decisions(other, [Decision(key, "reject")])
    push(other)
    pull(one)  # appends the older line, which was only here
    assert one.curation.read_bytes().count(b"\n") == 2
    assert read_curation(one).by_key[key].decision == "reject"


def test_decisions_of_two_machines_are_merged(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    one, other = (DatasetPaths("shells", tmp_path / name, store) for name in ("one", "other"))
    a, b = (image_key(f"https://shells.example/{n}") for n in range(2))

    def record(dataset: DatasetPaths, key: str, *decisions: str) -> None:
        record_decisions(dataset, [Decision(key, decision) for decision in decisions])

    record(one, a, "reject", "undo", "keep")
    push(one)
    pull(other)
    record(other, b, "reject")
    push(other)
    record(one, a, "reject")
    pull(one)
    decided = read_curation(one).by_key
    assert {key: found.decision for key, found in decided.items()} == {a: "reject", b: "reject"}
