"""Select: each reason, duplicates, and that nothing but the lists is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image, ImageFilter, ImageOps

from pipeline.contract import read_jsonl
from pipeline.select.rules import REASONS
from pipeline.select.stage import select


def reasons(shop: Any) -> dict[str, str]:
    return {line["key"]: line["reason"] for line in read_jsonl(shop.dataset.rejections)}


def kept(shop: Any) -> list[str]:
    return [line["key"] for line in read_jsonl(shop.dataset.selection)]


def test_each_fact_rejects_with_its_reason(shop: Any, log: Any) -> None:
    good = shop.served(1, labels=("Conus",))[0]
    blurred = shop.picture(1).filter(ImageFilter.GaussianBlur(6))
    bad = {
        "small": shop.Served(shop.encoded(shop.picture(2, (60, 40))), "small", ("Conus",)),
        "elongated": shop.Served(shop.encoded(shop.picture(3, (400, 90))), "long", ("Conus",)),
        "blurred": shop.Served(shop.encoded(blurred), "blurred", ("Conus",)),
        "uniform": shop.Served(
            shop.encoded(Image.effect_noise((99, 99), 3).convert("RGB")), "grey", ("Conus",)
        ),
        "incomplete": shop.Served(
            shop.encoded(
                ImageOps.pad(shop.picture(8), (180, 150), color="#808080", centering=(0, 0))
            ),
            "ended early",
            ("Conus",),
        ),
        "license": shop.Served(shop.encoded(shop.picture(5)), "mine", ("Conus",), "All mine"),
        "label": shop.Served(shop.encoded(shop.picture(6)), "cowrie", ("Cypraea",)),
        "mode": shop.Served(shop.encoded(shop.picture(7).convert("CMYK")), "press", ("Conus",)),
    }
    shop.add([good, *bad.values()])
    shop.add(shop.served(1, start=90, labels=("Conus",)), listed=False)
    recipe = shop.recipe(
        {
            "min_side": 64, "max_aspect": 2.5, "min_blur": 8.0, "min_spread": 4.0,
            "licenses": ["cc0", "CC BY"], "labels": ["conus"], "modes": ["RGB"],
            "near_duplicate_bits": "off",
        }
    )  # fmt: skip
    result = select(recipe, shop.dataset, log)
    assert kept(shop) == [good.key]
    found = reasons(shop)
    assert {name: found[one.key] for name, one in bad.items()} == {name: name for name in bad}
    assert result.kept == 1
    assert result.rejected == {**dict.fromkeys(bad, 1), "not_in_manifest": 1}
    assert set(result.rejected) <= set(REASONS)


def test_of_duplicates_the_larger_copy_stays(shop: Any, log: Any) -> None:
    image = shop.picture(1, (240, 180))
    small, large = (shop.encoded(image.resize(size)) for size in ((120, 90), (240, 180)))
    images = [
        shop.Served(small, "thumb"),
        shop.Served(large, "full"),
        shop.Served(large, "mirror"),
        *shop.served(3, start=10),
    ]
    shop.add(images)
    recipe = shop.recipe({"near_duplicate_bits": 4})
    result = select(recipe, shop.dataset, log)
    assert result.rejected == {"duplicate": 1, "near_duplicate": 1}
    stays = min(images[1].key, images[2].key)
    assert set(kept(shop)) == {stays, *(one.key for one in images[3:])}
    for line in read_jsonl(shop.dataset.rejections):
        assert line["detail"].startswith(stays)
    # Without near duplicates only the equal bytes go.
    again = select(shop.recipe({"near_duplicate_bits": "off"}), shop.dataset, log)
    assert again.rejected == {"duplicate": 1}


def test_two_of_a_kind_in_one_pose_both_stay(shop: Any, log: Any) -> None:
    """The first hash sees the pose alone; the second the pattern too."""
    pose = shop.picture(1, (256, 256), (4, 4))
    images = [shop.Served(shop.encoded(pose), "plain")]
    for seed in (1, 2):
        pattern = shop.picture(seed, (256, 256), (40, 40))
        images.append(shop.Served(shop.encoded(Image.blend(pose, pattern, 0.1)), f"{seed}"))
    copy = Image.blend(pose, shop.picture(2, (256, 256), (40, 40)), 0.1)
    images.append(shop.Served(shop.encoded(copy.point(lambda v: int(v * 0.9))), "darker"))
    shop.add(images)
    alone = select(
        shop.recipe({"near_duplicate_bits": 16, "near_duplicate_detail": 256}), shop.dataset, log
    )
    assert alone.rejected == {"near_duplicate": 3}
    both = select(shop.recipe({"near_duplicate_bits": 16}), shop.dataset, log)
    assert both.rejected == {"near_duplicate": 1}
    (line,) = read_jsonl(shop.dataset.rejections)
    assert {line["key"], line["detail"][:16]} == {images[2].key, images[3].key}
    assert line["detail"].endswith("of the detail)")


def test_records_without_the_second_hash_are_kept_and_told(shop: Any, log: Any) -> None:
    image = shop.picture(1, (240, 180))
    shop.add([shop.Served(shop.encoded(image, quality=q), f"{q}") for q in (60, 90)])
    journal = next(shop.dataset.originals_dir.glob("*[0-9].jsonl"))
    rows = list(read_jsonl(journal))
    for row in rows:
        assert len(row.pop("detail")) == 64
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert select(shop.recipe(), shop.dataset, log).kept == 2
    (event,) = [e for e in read_jsonl(shop.dataset.event_log) if e["event"] == "without_detail"]
    assert event["facts"] == {"images": 2}


def test_a_rejected_copy_does_not_reject_others(shop: Any, log: Any) -> None:
    data = shop.encoded(shop.picture(1))
    shop.add([shop.Served(data, "a", license="mine"), shop.Served(data, "b")])
    result = select(shop.recipe({"licenses": ["cc0"]}), shop.dataset, log)
    assert (result.kept, result.rejected) == (1, {"license": 1})


def test_the_same_facts_give_the_same_bytes_and_nothing_else_changes(
    shop: Any, log: Any, tree: Any
) -> None:
    shop.add(shop.served(12))
    select(shop.recipe({"min_blur": 1e9}), shop.dataset, log)
    assert kept(shop) == []
    select(shop.recipe(), shop.dataset, log)
    before = tree(shop.root)
    select(shop.recipe(), shop.dataset, log)
    assert tree(shop.root) == before
    assert len(kept(shop)) == 12
    assert sorted(path.name for path in shop.dataset.manifest_dir.iterdir()) == [
        "kept.jsonl", "rejected.jsonl", "urls.jsonl",
    ]  # fmt: skip


def test_an_image_without_the_label_that_is_its_class_is_rejected(shop: Any, log: Any) -> None:
    shop.add([*shop.served(2, labels=("shell", "Conus")), *shop.served(1, 5, labels=("shell",))])
    result = select(shop.recipe(class_label=1), shop.dataset, log)
    assert (result.kept, result.rejected) == (2, {"no_class_label": 1})


@pytest.mark.parametrize("torn", [b'{"key": "00', b""])
def test_a_torn_manifest_line_is_no_error(shop: Any, log: Any, torn: bytes) -> None:
    shop.add(shop.served(2))
    with shop.dataset.url_manifest.open("ab") as file:
        file.write(torn)
    assert select(shop.recipe(), shop.dataset, log).kept == 2
