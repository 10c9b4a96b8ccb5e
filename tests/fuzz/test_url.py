"""URLs of any text: each is refused, or has one spelling that both transports take."""

from __future__ import annotations

import string

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.web.attempts import redirect_target
from pipeline.web.connections import is_public
from pipeline.web.responses import RawResponse, RequestFailure
from pipeline.web.urls import canonical_url, host_key, request_url

PARTS = st.sampled_from((
    "http:", "https:", "HTTP:", "ftp:", "//", "/", "\\", "[", "]", "[::1]", "[fe80::1%25e]",
    "[v1.a]",
    "@", "user:pw@", ":", ":80", ":0", ":99999", ":\u0663", "a.example", "a..b", "-", "xn--a",
    "\xfc.de",
    "127.1", "0x7f.1", "2130706433", "0", "?", "#", "&", "utm_a=1", "%", "%2", "%41", "%c3%a9",
    "..", ".",
    " ", "\t", "\n", "\x00", "\x7f", "\x85", "\u2028", "\ud83d", "\U0001f40c", "{x}", "|", "a" * 70,
))  # fmt: skip
URLS = st.one_of(
    st.lists(PARTS, max_size=12).map("".join),
    st.builds("http://{}".format, st.lists(PARTS, max_size=9).map("".join)),
    st.builds("http://{}/{}".format, st.text(max_size=20), st.text(max_size=20)),
    st.text(max_size=60),
)


@given(URLS, st.none() | URLS)
@example("http://[::1/", None)
@example("http://\ud83d/", None)
@example("HTTP://\xfc.Example:80/a b/../\xe9%2?x=\u2028#y", None)
@example("../b.jpg?utm_a=1", "https://a.example:8443/c/d")
def test_a_canonical_url_is_ascii_stable_and_can_be_requested(url, base):
    found = canonical_url(url, base)
    if found is not None:
        assert set(found) <= set(string.printable) - set(string.whitespace)
        assert canonical_url(found) == found
        assert request_url(found) == found
        assert found.startswith(host_key(found).partition(":")[0])


@given(URLS)
@example("HTTP://\xfc.Example:80/a b/../\xe9%2?x=\u2028#y")
def test_a_url_to_request_is_ascii_and_stable(url):
    try:
        found = request_url(url)
    except ValueError:
        return
    assert set(found) <= set(string.printable) - set(string.whitespace)
    assert request_url(found) == found
    assert host_key(found + "?x") == host_key(url)
    assert host_key(host_key(url)) == host_key(url)


@given(st.one_of(URLS, st.binary(max_size=80).map(lambda raw: raw.decode("latin-1"))))
def test_a_redirect_leads_to_what_can_be_requested_or_is_one_failure(location):
    answer = RawResponse("http://a.example/b/c?d", 302, {"location": location}, b"")
    target = redirect_target(answer)
    if isinstance(target, RequestFailure):
        assert target.kind == "bad_redirect"
    else:
        assert request_url(target) == target


@given(st.one_of(st.text(max_size=40), st.ip_addresses().map(str)))
def test_an_address_is_public_or_not(address):
    assert is_public(address) in (True, False)
    if is_public(address):
        assert is_public(f"{address}%eth0")
