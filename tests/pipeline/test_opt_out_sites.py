"""Opt-out signals over real HTTP on loopback: policy files, answers and pages, by both drivers."""

from __future__ import annotations

import json
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, JsonlAppender, image_key, read_jsonl
from pipeline.crawl.check_recipe import check_recipe
from pipeline.crawl.stage import crawl
from pipeline.errors import Failure
from pipeline.events import EventLog
from pipeline.fetcher import Fetcher, Politeness
from pipeline.originals.download import download
from pipeline.originals.parts import PartFiles, planned_parts, read_records
from pipeline.recipe import Recipe
from pipeline.select.stage import select
from pipeline.shards.stage import shard
from pipeline.sources.folder import FolderSource
from pipeline.sources.html_options import HtmlSource
from pipeline.status import format_status as describe_status
from pipeline.status import read_status
from pipeline.web.bulk_fetcher import BulkFetcher
from pipeline.web.hosts import TRIALS
from pipeline.web.responses import Response
from tests.helpers.faulty_site import Behaviour, FaultySite, Row, picture, redirect, serve, status
from tests.helpers.opt_out_examples import VOCABULARY, image_with, licence, packet, rsl

Outcome = Response | Failure
Fetch = Callable[[list[str], Politeness], dict[str, Outcome]]

TDMREP = "/.well-known/tdmrep.json"
RESERVED = b'[{"location": "/", "tdm-reservation": 1, "tdm-policy": "https://a.example/p"}]'
PROHIBITED = rsl(licence('<prohibits type="usage">ai-train</prohibits>'))
RSL_TYPE = "application/rsl+xml"


def polite(**changes) -> Politeness:
    quick = {"rate": 500.0, "concurrency": 1, "allow_private": True, "attempts": 3,
             "backoff": 0.01, "max_backoff": 0.02, "first_byte_timeout": 0.3}  # fmt: skip
    return Politeness(**{**quick, **changes})


def as_pages(urls: list[str], politeness: Politeness) -> dict[str, Outcome]:
    with Fetcher(politeness) as fetcher:
        return {url: fetcher.get(url, stage="crawl") for url in urls}


def as_images(urls: list[str], politeness: Politeness) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    with BulkFetcher[str](politeness, "download") as bulk:
        for url in urls:
            bulk.add(url, url)
        while bulk.pending:
            outcomes.update(bulk.poll(0.1))
    return outcomes


@pytest.fixture(params=[as_pages, as_images], ids=["pages", "images"])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    return request.param


def put(site: FaultySite, **behaviours: Behaviour) -> None:
    """Serve something at `/NAME.jpg`."""
    site.rows |= {f"/{name}.jpg": Row(f"/{name}.jpg", one) for name, one in behaviours.items()}


def put_file(site: FaultySite, path: str, behaviour: Behaviour) -> None:
    site.rows[path] = Row(path, behaviour)


def robots(site: FaultySite, text: str) -> None:
    site.robots = serve(text.encode(), type_="text/plain")


def refused(outcome: Outcome) -> str:
    """The detail of an opt-out; empty if there was none."""
    if isinstance(outcome, Response):
        return ""
    assert outcome.kind == "opt_out", outcome
    return outcome.detail


GOOD = serve(picture(1))


# robots.txt


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("Content-Signal: search=yes, ai-train=no", "content-signal: robots.txt"),
        ("Content-Usage: train-ai=n", "content-usage: robots.txt"),
        ("Content-Usage: /a train-ai=n", "content-usage: robots.txt"),
    ],
)
def test_a_preference_in_robots_txt_refuses_without_a_request(
    line: str, detail: str, fetch: Fetch, faulty_site: FaultySite
) -> None:
    put(faulty_site, a=GOOD)
    url = faulty_site.url("/a.jpg")
    robots(faulty_site, f"User-agent: *\n{line}\nAllow: /\n")
    assert refused(fetch([url], polite())[url]) == detail
    assert not faulty_site.times("/a.jpg")
    robots(faulty_site, f"User-agent: OtherBot\n{line}\n\nUser-agent: *\nAllow: /\n")
    assert refused(fetch([url], polite())[url]) == ""


def test_an_override_lets_the_image_through_and_is_recorded(
    fetch: Fetch, faulty_site: FaultySite
) -> None:
    put(faulty_site, a=serve(picture(1), X_Robots_Tag="noai"))
    robots(faulty_site, "User-agent: *\nContent-Signal: ai-train=no\n")
    put_file(faulty_site, TDMREP, serve(RESERVED))
    url = faulty_site.url("/a.jpg")
    mine = dict.fromkeys(("noai", "content-signal"), "mine")
    assert refused(fetch([url], polite(opt_out_overrides=mine))[url]) == (
        f"tdm-reservation: {TDMREP}, policy https://a.example/p"
    )
    mine["tdm-reservation"] = "mine"
    outcome = fetch([url], polite(opt_out_overrides=mine))[url]
    assert isinstance(outcome, Response)
    assert {one.name for one in outcome.signals} == mine.keys()


def test_the_old_switch_asks_for_no_policy_files(fetch: Fetch, faulty_site: FaultySite) -> None:
    put(faulty_site, a=serve(picture(1), TDM_Reservation="1"))
    robots(faulty_site, "User-agent: *\nContent-Signal: ai-train=no\nLicense: /l.xml\n")
    url = faulty_site.url("/a.jpg")
    outcome = fetch([url], polite(honour_opt_out=False))[url]
    assert isinstance(outcome, Response)
    assert {one.name for one in outcome.signals} == {"content-signal", "tdm-reservation"}
    assert Counter(path for _, path, _ in faulty_site.log) == {"/robots.txt": 1, "/a.jpg": 1}


def test_signals_of_a_redirecting_host_count_too(fetch: Fetch, faulty_site: FaultySite) -> None:
    with FaultySite() as second:
        put(faulty_site, a=redirect(second.url("/b.jpg")))
        put(second, b=GOOD)
        url = faulty_site.url("/a.jpg")
        robots(second, "User-agent: *\nContent-Signal: ai-train=no\n")
        assert refused(fetch([url], polite())[url]) == "content-signal: robots.txt"
        assert not second.times("/b.jpg")
        robots(second, "")
        robots(faulty_site, "User-agent: *\nContent-Usage: train-ai=n\n")
        mine = {"content-usage": "mine"}
        outcome = fetch([url], polite(opt_out_overrides=mine))[url]
        assert isinstance(outcome, Response)
        assert [one.name for one in outcome.signals] == ["content-usage"]


# tdmrep.json


def test_tdmrep_json_is_asked_for_once_a_host(fetch: Fetch, faulty_site: FaultySite) -> None:
    put(faulty_site, **dict.fromkeys("abcdefgh", GOOD))
    urls = [faulty_site.url(f"/{name}.jpg") for name in "abcdefgh"]
    outcomes = fetch(urls, polite(concurrency=4))
    assert all(isinstance(one, Response) for one in outcomes.values())
    assert len(faulty_site.times(TDMREP)) == len(faulty_site.times("/robots.txt")) == 1


def test_a_reservation_counts_where_it_matches(fetch: Fetch, faulty_site: FaultySite) -> None:
    put(faulty_site, a=GOOD, b=GOOD)
    put_file(faulty_site, TDMREP, serve(b'[{"location": "/a*", "tdm-reservation": 1}]'))
    a, b = faulty_site.url("/a.jpg"), faulty_site.url("/b.jpg")
    outcomes = fetch([a, b], polite())
    assert refused(outcomes[a]) == f"tdm-reservation: {TDMREP}"
    assert refused(outcomes[b]) == ""


def test_the_header_overrides_the_file(fetch: Fetch, faulty_site: FaultySite) -> None:
    put(faulty_site, a=serve(picture(1), TDM_Reservation="0"), b=serve(picture(2)))
    put_file(faulty_site, TDMREP, serve(RESERVED))
    a, b = faulty_site.url("/a.jpg"), faulty_site.url("/b.jpg")
    outcomes = fetch([a, b], polite())
    assert refused(outcomes[a]) == ""
    assert refused(outcomes[b]).startswith("tdm-reservation")
    put_file(faulty_site, TDMREP, serve(b'[{"location": "/", "tdm-reservation": 0}]'))
    put(faulty_site, a=serve(picture(1), TDM_Reservation="1"))
    assert refused(fetch([a], polite())[a]) == "tdm-reservation: header"


def test_a_page_overrides_header_and_file(faulty_site: FaultySite) -> None:
    text = b'<html><head><meta name="tdm-reservation" content="0"></head><body>x</body></html>'
    html = serve(text, type_="text/html; charset=utf-8", TDM_Reservation="1")
    put_file(faulty_site, "/page", html)
    put_file(faulty_site, TDMREP, serve(RESERVED))
    url = faulty_site.url("/page")
    assert refused(as_pages([url], polite())[url]) == ""


def test_a_host_that_never_lifts_its_reservation_is_spared(
    fetch: Fetch, faulty_site: FaultySite
) -> None:
    names = [f"n{number}" for number in range(3 * TRIALS)]
    put(faulty_site, **dict.fromkeys(names, GOOD))
    put_file(faulty_site, TDMREP, serve(RESERVED))
    urls = [faulty_site.url(f"/{name}.jpg") for name in names]
    outcomes = fetch(urls, polite())
    assert all(refused(one).startswith("tdm-reservation") for one in outcomes.values())
    assert len(faulty_site.asked()) == TRIALS


def hangs(request) -> None:
    time.sleep(1.0)


@pytest.mark.parametrize(
    "behaviour",
    [
        status("500 Internal Server Error"), status("503 Service Unavailable"), hangs,
        status("404 Not Found"), serve(b"<html>soft 404</html>", type_="text/html"),
        serve(b"[" * 10_000), serve(b""), serve(b"x" * (2 << 20)), redirect(TDMREP),
        redirect("http://127.0.0.1:9/x"),
    ],
    ids=["500", "503", "hangs", "404", "html", "deep", "empty", "large", "loop", "dead"],
)  # fmt: skip
def test_a_policy_file_that_cannot_be_had_costs_no_image(
    behaviour: Behaviour, fetch: Fetch, faulty_site: FaultySite
) -> None:
    put(faulty_site, a=GOOD, b=GOOD)
    put_file(faulty_site, TDMREP, behaviour)
    put_file(faulty_site, "/l.xml", behaviour)
    robots(faulty_site, "User-agent: *\nAllow: /\n\nLicense: /l.xml\n")
    urls = [faulty_site.url("/a.jpg"), faulty_site.url("/b.jpg")]
    outcomes = fetch(urls, polite(max_redirects=3))
    assert [type(outcomes[url]) for url in urls] == [Response, Response]


# RSL


def test_a_licence_in_robots_txt(fetch: Fetch, faulty_site: FaultySite) -> None:
    put(faulty_site, a=GOOD, b=GOOD)
    robots(faulty_site, "License: /l.xml\n\nUser-agent: *\nAllow: /\n")
    terms = '<prohibits type="usage">ai-all</prohibits>'
    put_file(faulty_site, "/l.xml", serve(rsl(licence(terms, "/a*")), type_=RSL_TYPE))
    a, b = faulty_site.url("/a.jpg"), faulty_site.url("/b.jpg")
    outcomes = fetch([a, b], polite())
    assert refused(outcomes[a]) == f"rsl: licence, policy {faulty_site.url('/l.xml')}"
    assert refused(outcomes[b]) == ""
    assert len(faulty_site.times("/l.xml")) == 1
    assert not faulty_site.times("/a.jpg")


def test_a_licence_on_another_host(fetch: Fetch, faulty_site: FaultySite) -> None:
    with FaultySite() as second:
        put(faulty_site, a=GOOD)
        put_file(second, "/l.xml", redirect("/terms.xml"))
        put_file(second, "/terms.xml", serve(PROHIBITED, type_=RSL_TYPE))
        robots(faulty_site, f"License: {second.url('/l.xml')}\n\nUser-agent: *\nAllow: /\n")
        url = faulty_site.url("/a.jpg")
        assert refused(fetch([url], polite())[url]).startswith("rsl: licence, policy http")
        assert second.asked() == ["/l.xml", "/terms.xml"]


def test_a_licence_that_answers_link_to(fetch: Fetch, faulty_site: FaultySite) -> None:
    link = f'</l.xml>; rel="license"; type="{RSL_TYPE}"'
    names = "abcdef"
    put(faulty_site, **{name: serve(picture(1), Link=link) for name in names}, free=GOOD)
    put_file(faulty_site, "/l.xml", serve(PROHIBITED, type_=RSL_TYPE))
    urls = [faulty_site.url(f"/{name}.jpg") for name in names]
    free = faulty_site.url("/free.jpg")
    outcomes = fetch([*urls, free], polite(concurrency=4))
    assert all(refused(outcomes[url]).startswith("rsl: licence") for url in urls)
    assert refused(outcomes[free]) == ""
    assert len(faulty_site.times("/l.xml")) == 1
    mine = fetch([*urls, free], polite(concurrency=4, opt_out_overrides={"rsl": "bought"}))
    assert Counter(type(one) for one in mine.values()) == {Response: 7}
    seen = [mine[url].signals for url in urls]
    assert all([one.name for one in signals] == ["rsl"] for signals in seen)


def test_answers_with_endless_licences_cost_few_requests(
    fetch: Fetch, faulty_site: FaultySite
) -> None:
    links = ", ".join(f'</l{n}.xml>; rel="license"; type="{RSL_TYPE}"' for n in range(60))
    put(faulty_site, a=serve(picture(1), Link=links))
    url = faulty_site.url("/a.jpg")
    assert isinstance(fetch([url], polite())[url], Response)
    assert len(faulty_site.asked()) <= 20


# pages, through the crawl


def crawled(site: FaultySite, folder: Path, body: str, **politeness) -> DatasetPaths:
    text = f"<html><head>{body}</head><body><img src=/a.jpg></body></html>".encode()
    put_file(site, "/page", serve(text, type_="text/html"))
    dataset = DatasetPaths("shells", folder)
    source = HtmlSource(start=(site.url("/page"),))
    with EventLog(dataset, "test") as log:
        crawl(Recipe(source=source, politeness=polite(**politeness)), dataset, log)
    return dataset


PAGE_SIGNALS = {
    "noai": '<meta name="robots" content="noindex, noai">',
    "noimageai": '<meta name="ShellGAN" content="noimageai">',
    "noml": "<meta name=robots content=noml>",
    "tdm-reservation": '<meta name="tdm-reservation" content="1">',
    "rsl": f'<link rel="license" type="{RSL_TYPE}" href="/l.xml">',
}


@pytest.mark.parametrize("name", PAGE_SIGNALS)
def test_what_a_page_says(name: str, faulty_site: FaultySite, tmp_path: Path) -> None:
    put_file(faulty_site, "/l.xml", serve(PROHIBITED, type_=RSL_TYPE))
    dataset = crawled(faulty_site, tmp_path / "no", PAGE_SIGNALS[name])
    (line,) = read_jsonl(dataset.failure_log)
    assert (line["kind"], line["detail"].partition(":")[0]) == ("opt_out", name)
    mine = {name: "I own the site"}
    dataset = crawled(faulty_site, tmp_path / "yes", PAGE_SIGNALS[name], opt_out_overrides=mine)
    (row,) = read_jsonl(dataset.url_manifest)
    assert [one.partition(":")[0] for one in row["page_opt_out"]] == [name]


def test_rsl_inside_a_page(faulty_site: FaultySite, tmp_path: Path) -> None:
    script = f'<script type="{RSL_TYPE}">{PROHIBITED.decode()}</script>'
    (line,) = read_jsonl(crawled(faulty_site, tmp_path, script).failure_log)
    assert line["detail"] == "rsl: licence"


def test_unread_policy_files_are_told_once(faulty_site: FaultySite, tmp_path: Path) -> None:
    put_file(faulty_site, TDMREP, status("500 Internal Server Error"))
    dataset = crawled(faulty_site, tmp_path, "")
    told = [line["facts"] for line in read_jsonl(dataset.event_log)
            if line["event"] == "policy file not read"]  # fmt: skip
    assert told == [{"url": faulty_site.url(TDMREP), "reason": "server_error, status 500"}]


# images, all the way to the samples


def downloaded(dataset: DatasetPaths, recipe: Recipe) -> None:
    with EventLog(dataset, "test") as log:
        download(recipe, dataset, log)


def manifest(dataset: DatasetPaths, *urls: str) -> None:
    with JsonlAppender(dataset.url_manifest) as rows:
        rows.append(*({"key": image_key(url), "url": url} for url in urls))


def test_seen_signals_are_recorded_with_the_image(faulty_site: FaultySite, tmp_path: Path) -> None:
    prohibited = image_with(packet(f"{VOCABULARY}DMI-PROHIBITED"), "JPEG")
    put(faulty_site, a=serve(picture(1), X_Robots_Tag="noai"), b=serve(picture(2)),
        c=serve(prohibited), d=serve(picture(3), Content_Usage="train-ai=n"))  # fmt: skip
    put_file(faulty_site, TDMREP, serve(b'[{"location": "/a", "tdm-reservation": 1}]'))
    urls = [faulty_site.url(f"/{name}.jpg") for name in "abcd"]
    dataset = DatasetPaths("shells", tmp_path)
    manifest(dataset, *urls)
    mine = {"noai": "I own it", "tdm-reservation": "licence 12 of 2026"}
    source = HtmlSource(start=(faulty_site.url("/"),))
    recipe = Recipe(source=source, politeness=polite(opt_out_overrides=mine))
    downloaded(dataset, recipe)
    failed = {line["url"][-5:]: line["detail"] for line in read_jsonl(dataset.failure_log)}
    assert failed == {
        "c.jpg": "plus-data-mining: XMP of the file, DMI-PROHIBITED",
        "d.jpg": "content-usage: header",
    }
    recorded = {record.key: record.opt_out for record in read_records(dataset)}
    assert recorded == {
        image_key(urls[0]): [
            {"signal": "noai", "where": "X-Robots-Tag", "overridden": "I own it"},
            {"signal": "tdm-reservation", "where": TDMREP, "overridden": "licence 12 of 2026"},
        ],
        image_key(urls[1]): [],
    }
    assert sidecars(dataset) == recorded
    with EventLog(dataset, "test") as log:
        select(recipe, dataset, log)
        shard(recipe, dataset, log)
    assert samples(dataset) == recorded
    told = {"plus-data-mining": 1, "content-usage": 1}
    assert read_status(dataset).opt_outs == told
    assert "content-usage 1, plus-data-mining 1" in describe_status(read_status(dataset))
    card = dataset.card.read_text()
    assert "| plus-data-mining | 1 | refused |  |" in card
    assert "| tdm-reservation | 1 | kept, overridden | licence 12 of 2026 |" in card


def members(tar_path: Path) -> dict[str, dict]:
    with tarfile.open(tar_path) as tar:
        return {
            one.name.removesuffix(".json"): json.load(tar.extractfile(one))
            for one in tar
            if one.name.endswith(".json")
        }


def sidecars(dataset: DatasetPaths) -> dict[str, list]:
    tars = [PartFiles(dataset, part).tar for part in planned_parts(dataset)]
    return {key: one["opt_out"] for tar in tars for key, one in members(tar).items()}


def samples(dataset: DatasetPaths) -> dict[str, list]:
    tars = sorted(dataset.shards_dir.glob("*.tar"))
    return {key: one["opt_out"] for tar in tars for key, one in members(tar).items()}


def test_signals_of_the_page_are_recorded_with_the_image(
    faulty_site: FaultySite, tmp_path: Path
) -> None:
    put(faulty_site, a=serve(picture(1)))
    mine = {"noai": "I own it"}
    dataset = crawled(faulty_site, tmp_path, PAGE_SIGNALS["noai"], opt_out_overrides=mine)
    source = HtmlSource(start=(faulty_site.url("/"),))
    downloaded(dataset, Recipe(source=source, politeness=polite(opt_out_overrides=mine)))
    (record,) = read_records(dataset)
    assert record.opt_out == [
        {"signal": "noai", "where": "page, meta element", "overridden": "I own it"}
    ]
    # Without the override the manifest still says what the page said.
    again = DatasetPaths("again", tmp_path)
    with JsonlAppender(again.url_manifest) as rows:
        rows.append(*read_jsonl(dataset.url_manifest))
    downloaded(again, Recipe(source=source, politeness=polite()))
    (line,) = read_jsonl(again.failure_log)
    assert (line["kind"], line["detail"]) == ("opt_out", "noai: page, meta element")


def test_the_metadata_of_local_files_counts(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    prohibited = image_with(packet(f"{VOCABULARY}DMI-PROHIBITED-GENAIMLTRAINING"), "PNG")
    (folder / "a.png").write_bytes(prohibited)
    (folder / "b.jpg").write_bytes(picture(1))
    recipe = Recipe(source=FolderSource(start=(folder,)), politeness=polite())
    dataset = DatasetPaths("shells", tmp_path)
    with EventLog(dataset, "test") as log:
        crawl(recipe, dataset, log)
        download(recipe, dataset, log)
    (line,) = read_jsonl(dataset.failure_log)
    assert line["url"].endswith("a.png")
    assert line["kind"] == "opt_out"
    assert len(list(read_records(dataset))) == 1


def test_check_recipe_names_the_signal_and_the_way_out(
    faulty_site: FaultySite, tmp_path: Path
) -> None:
    text = f"<html><head>{PAGE_SIGNALS['noml']}</head><body><img src=/a.jpg></body></html>"
    put_file(faulty_site, "/page", serve(text.encode(), type_="text/html"))
    url, path = faulty_site.url("/page"), tmp_path / "one.toml"
    path.write_text(
        f'[source]\nkind = "html"\nstart = ["{url}"]\n'
        "[politeness]\nallow_private = true\nrate = 500\n"
    )
    problem = check_recipe(path, url).error
    assert problem.startswith("opt_out: noml: meta element (politeness.opt_out_overrides can")
    path.write_text(path.read_text() + '[politeness.opt_out_overrides]\nnoml = "mine"\n')
    assert len(check_recipe(path, url).images) == 1
    robots(faulty_site, "User-agent: *\nContent-Signal: ai-train=no\n")
    assert "content-signal: robots.txt (politeness.opt_out_" in check_recipe(path, url).error


def test_hosts_that_wait_for_each_other_s_licences(fetch: Fetch) -> None:
    """Each host's robots.txt names a licence of the next, each image one of the one after."""
    count = 20
    with (
        FaultySite() as a,
        FaultySite(address="127.0.0.2") as b,
        FaultySite(address="127.0.0.3") as c,
    ):
        sites = [a, b, c]
        for site, following, last in zip(sites, (b, c, a), (c, a, b), strict=True):
            link = f'<{last.url("/m.xml")}>; rel="license"; type="{RSL_TYPE}"'
            put(site, **{f"x{n}": serve(picture(n), Link=link) for n in range(count)})
            robots(site, f"License: {following.url('/l.xml')}\n\nUser-agent: *\nAllow: /\n")
            put_file(site, "/l.xml", serve(rsl()))
            put_file(site, "/m.xml", serve(PROHIBITED if site is a else rsl()))
        urls = [site.url(f"/x{n}.jpg") for n in range(count) for site in sites]
        outcomes = fetch(urls, polite(concurrency=8))
        kinds = Counter(bool(refused(outcomes[url])) for url in urls)
        assert kinds == {True: count, False: 2 * count}
        for site in sites:
            asked = ("/robots.txt", TDMREP, "/l.xml", "/m.xml")
            assert [len(site.times(path)) for path in asked] == [1, 1, 1, 1]
