"""Negotiation of media types and content codings, against slow and obvious models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simple.media import MediaType, choose_coding, media_of, negotiate

JSON, HTML_V1, TEXT_HTML = MediaType
PIP = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
UV = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, TEXT_HTML),
        ("", TEXT_HTML),
        ("*/*", TEXT_HTML),
        (PIP, JSON),
        (UV, JSON),
        ("application/vnd.pypi.simple.v1+json, */*;q=0.1", JSON),
        (BROWSER, TEXT_HTML),
        ("text/html, application/vnd.pypi.simple.v1+html, application/vnd.pypi.simple.v1+json", JSON),
        ("text/html, application/vnd.pypi.simple.v1+html", HTML_V1),
        ("text/html;q=0.9, application/vnd.pypi.simple.v1+json;q=0.8", TEXT_HTML),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("application/vnd.pypi.simple.latest+html", HTML_V1),
        ("APPLICATION/VND.PYPI.SIMPLE.V1+JSON ; Q=1.0", JSON),
        ("text/html;charset=utf-8", TEXT_HTML),
        ("text/*", TEXT_HTML),
        ("application/*", JSON),
        ("application/*, application/vnd.pypi.simple.v1+json;q=0", HTML_V1),
        ("*/*, text/html;q=0", JSON),
        ("*/*, application/vnd.pypi.simple.v1+json;q=0.5", TEXT_HTML),
        ("*/*;q=0.5, application/vnd.pypi.simple.v1+html;q=0.5", HTML_V1),
        ("text/html, */*;q=0", TEXT_HTML),
        ("*/*;q=0", None),
        ("text/html;q=0", None),
        ("text/html;q=0.0, application/json", None),
        ("application/json", None),
        ("application/vnd.pypi.simple.v2+json", None),
        ("image/png", None),
        ("text/html;q=high, application/vnd.pypi.simple.v1+json;q=0.1", JSON),
        (",,;q=1, text/html", TEXT_HTML),
    ],
)
def test_the_media_type_for_an_accept_header(accept: str | None, media: MediaType | None) -> None:
    assert negotiate(accept) is media


@pytest.mark.parametrize(
    ("wish", "media"),
    [
        ("application/vnd.pypi.simple.v1+json", JSON),
        ("application/vnd.pypi.simple.v1 json", JSON),
        ("application/vnd.pypi.simple.latest+html", HTML_V1),
        ("text/html", TEXT_HTML),
        ("json", None),
        ("*/*", None),
        ("", None),
    ],
)
def test_a_format_in_the_url_overrides_the_accept_header(wish: str, media: MediaType | None) -> None:
    assert negotiate(BROWSER, wish) is media
    assert negotiate("image/png", wish) is media


RANGES = ["*/*", "application/*", "text/*", "image/png", *(media.value for media in MediaType)]
RANGES += ["application/vnd.pypi.simple.latest+json", "application/vnd.pypi.simple.latest+html"]
weighted = st.lists(st.tuples(st.sampled_from(RANGES), st.sampled_from([0.0, 0.1, 0.5, 1.0])), min_size=1, max_size=6)


def model(ranges: list[tuple[str, float]]) -> MediaType | None:
    """Every media type's quality by its most specific range (RFC 9110 section 12.5.1), then the ties."""
    rated = []
    for richness, media in enumerate(reversed(MediaType)):
        for specificity, names in (
            (2, [media.value, media.value.replace(".v1+", ".latest+")]),
            (1, [media.value.partition("/")[0] + "/*"]),
            (0, ["*/*"]),
        ):
            qualities = [quality for name, quality in ranges if name in names]
            if qualities:
                tie = richness if specificity or media is not TEXT_HTML else 99
                rated.append((max(qualities), specificity > 0, tie, media))
                break
    best = max(rated, key=lambda each: each[:3], default=None)
    return best[3] if best is not None and best[0] > 0 else None


@given(weighted)
def test_negotiation_does_what_the_obvious_model_does_in_any_order(ranges: list[tuple[str, float]]) -> None:
    assert negotiate(", ".join(f"{name};q={quality}" for name, quality in ranges)) is model(ranges)
    assert negotiate(",".join(f"{name} ; q={quality}" for name, quality in reversed(ranges))) is model(ranges)


@given(st.text(st.sampled_from('*/;,=q01. atex/html"\x00é'), max_size=40))
def test_no_header_makes_it_fail(header: str) -> None:
    negotiate(header)
    choose_coding(header, ("zstd", "gzip"))
    media_of(header, b"<")


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("identity", "identity"),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, zstd", "zstd"),
        ("gzip, zstd;q=0.5", "gzip"),
        ("br", "identity"),
        ("*", "zstd"),
        ("*;q=0.5, gzip", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("gzip;q=0", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity;q=0", "identity"),
        ("*;q=0", "identity"),
        ("x-gzip", "gzip"),
        ("GZIP;Q=1", "gzip"),
        ("gzip;q=x", "identity"),
    ],
)
def test_the_content_coding_for_an_accept_encoding_header(header: str | None, coding: str) -> None:
    assert choose_coding(header, ("zstd", "gzip")) == coding
    assert choose_coding(header, ["zstd", "gzip"]) == coding


def test_only_what_is_available_is_chosen() -> None:
    assert choose_coding("zstd, gzip", ("gzip",)) == "gzip"
    assert choose_coding("zstd, gzip", ()) == "identity"


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/vnd.pypi.simple.v1+json", "json"),
        ("application/vnd.pypi.simple.latest+json", "json"),
        ("Application/JSON; charset=utf-8", "json"),
        ("text/html; charset=UTF-8", "html"),
        ('TEXT/HTML;charset="utf-8";', "html"),
        ("text/html ; charset = utf-8", "html"),
        ("text/html charset=utf-8", "html"),
        ('"text/html"', "html"),
        ("text/html, text/html", "html"),
        ("text/html; charset=utf-8, text/html; charset=utf-8", "html"),
        ("text/html; profile=application/json", "html"),
        ("application/octet-stream, application/json", "json"),
        ("application/vnd.pypi.simple.v1+html", "html"),
        ("application/vnd.pypi.simple.v2+json", None),
        ("image/png", None),
    ],
)
def test_what_parser_an_answer_needs(content_type: str, kind: str | None) -> None:
    for start in (b"", b"<", b"{"):
        assert media_of(content_type, start) == kind


@pytest.mark.parametrize(
    "content_type", ["", "html", "application/octet-stream", "text/plain; charset=utf-8", "text/html, application/json"]
)
def test_where_the_header_is_unclear_the_body_says_what_it_is(content_type: str) -> None:
    assert media_of(content_type, b" \n<!DOCTYPE") == "html"
    assert media_of(content_type, b"{") == "json"
    assert media_of(content_type, b"\x89PNG") is None
    assert media_of(content_type, b"") is None


def test_no_more_of_a_header_is_read_than_any_type_takes() -> None:
    assert media_of("-" * 500 + ", text/html", b"{") == "json"


@pytest.mark.parametrize("weight", ["1" * 15_900, "1" * 15_900 + "x", "." * 15_900, "1." * 8000, "0." + "0" * 15_000 + "1"])
def test_a_quality_of_any_length_is_looked_at_once(weight: str) -> None:
    """An expression with two runs of digits takes the square of their length: seconds for one header."""
    for _ in range(50):
        assert negotiate(f"{MediaType.JSON.value};q={weight}, text/html;q=0.5") is MediaType.TEXT_HTML
        assert choose_coding(f"zstd;q={weight}, gzip;q=0.5", ("zstd", "gzip")) == "gzip"
