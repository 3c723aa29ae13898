"""What a fake upstream has: projects and files, and the documents and answers it makes of them.

Pages follow PEP 503 (HTML, version 1.0) and PEP 691/700/714/792 (JSON, version 1.4).
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from msgspec import Struct, field

from tests.support.digests import md5_of, sha256_of
from tests.support.faults import Answer, Request

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "application/vnd.pypi.simple.v1+html"
UPLOADED = "2024-01-02T03:04:05.678900Z"
MODIFIED = "Tue, 02 Jan 2024 03:04:05 GMT"


def normalize(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def version_of(filename: str) -> str:
    """The version in a wheel's or an sdist's name."""
    if filename.endswith((".whl", ".egg")):
        return filename.split("-")[1]
    return re.sub(r"\.(tar\.\w+|tgz|zip)$", "", filename).rpartition("-")[2]


class Project(Struct):
    """One project: its files' JSON entries by name, and what its page says beside them."""

    name: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    serial: int = 1
    #: (Content-Type, body): served as the page instead of what is made from the files.
    raw: tuple[str, bytes] | None = None


class Content:
    """The documents of one fake upstream.  Its settings are attributes and may be changed at any time."""

    def __init__(self) -> None:
        self.projects: dict[str, Project] = {}
        #: Answers by path, for everything that is no page; files are among them.
        self.paths: dict[str, Answer] = {}
        #: Speak JSON at all; say so in ``api_version``.
        self.json = True
        self.api_version = "1.4"
        self.relative = False
        self.etags = True
        self.last_modified = False
        self.max_age: int | None = 600
        self.serials = True
        #: Compress pages for those who accept it.
        self.compress = False
        #: PEP 381 text, ``YYYYMMDDTHH:MM:SS``; ``None``: 404.
        self.mirrored_at: str | None = None

    def project(self, name: str) -> Project:
        """The project *name*, made if it is not there."""
        return self.projects.setdefault(normalize(name), Project(normalize(name)))

    def put(self, base: str, project: str, filename: str, data: bytes, metadata: bytes | None, entry: Mapping[str, Any]) -> str:
        """Keep a file's bytes and its page entry.  Returns its URL's path."""
        sha256 = sha256_of(data)
        path = f"/packages/{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}/{filename}"
        listed: dict[str, Any] = {
            "filename": filename,
            "url": (base or "../..") + quote(path),
            "hashes": {"sha256": sha256},
            "size": len(data),
            "upload-time": UPLOADED,
            "yanked": False,
        }
        if metadata is not None:
            listed["core-metadata"] = {"sha256": hashlib.sha256(metadata).hexdigest()}
        listed.update(entry)
        found = self.project(project)
        found.files[filename] = {key: value for key, value in listed.items() if value is not None}
        found.serial += 1
        return path

    def keep(self, path: str, data: bytes, metadata: bytes | None = None) -> None:
        """Serve *data* under *path*, and *metadata* beside it."""
        headers = {"Content-Type": "application/octet-stream", "Last-Modified": MODIFIED, "ETag": _etag(data)}
        self.paths[path] = Answer(200, headers, data, True)
        if metadata is not None:
            self.paths[path + ".metadata"] = Answer(200, {"Content-Type": "binary/octet-stream"}, metadata, True)

    # -- answers ------------------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        """The answer of an upstream in good health."""
        if request.method not in ("GET", "HEAD"):
            return Answer(405, {"Allow": "GET, HEAD"})
        path = unquote(request.path.partition("?")[0])
        if path in self.paths:
            return self._conditional(request, self.paths[path])
        if path == "/last-modified" and self.mirrored_at is not None:
            return Answer(200, {"Content-Type": "text/plain"}, f"{self.mirrored_at}\n".encode())
        if path == "/simple/":
            return self._conditional(request, self._document(request, self._names()))
        simple = re.fullmatch(r"/simple/([^/]+)(/?)", path)
        if simple and normalize(simple[1]) in self.projects:
            name = normalize(simple[1])
            if not simple[2] or name != simple[1]:
                return Answer(301, {"Location": f"/simple/{name}/"})
            return self._conditional(request, self._page(request, self.projects[name]))
        legacy = re.fullmatch(r"/pypi/([^/]+)/(?:([^/]+)/)?json", path)
        if legacy and normalize(legacy[1]) in self.projects:
            return self._conditional(request, self._legacy(self.projects[normalize(legacy[1])], legacy[2]))
        return Answer(404, {"Content-Type": "text/html"}, b"<h1>404 Not Found</h1>")

    def _page(self, request: Request, project: Project) -> Answer:
        if project.raw is not None:
            answer = Answer(200, {"Content-Type": project.raw[0]}, project.raw[1])
        else:
            document = {
                "meta": {"api-version": self.api_version, "_last-serial": project.serial},
                "name": project.name,
                "versions": sorted({version_of(name) for name in project.files}),
                "files": list(project.files.values()),
                **project.keys,
            }
            answer = self._document(request, document)
        extra = {"X-PyPI-Last-Serial": str(project.serial)} if self.serials else {}
        if self.last_modified:
            extra["Last-Modified"] = MODIFIED
        return Answer(answer.status, {**answer.headers, **extra}, answer.body)

    def _names(self) -> dict[str, Any]:
        names = sorted(self.projects)
        serial = max((project.serial for project in self.projects.values()), default=0)
        return {
            "meta": {"api-version": self.api_version, "_last-serial": serial},
            "projects": [{"name": name, "_last-serial": self.projects[name].serial} for name in names],
        }

    def _document(self, request: Request, document: dict[str, Any]) -> Answer:
        """JSON or HTML, as *request* prefers and this upstream can."""
        accept = request.headers.get("accept", "*/*")
        cached = {"Cache-Control": f"max-age={self.max_age}"} if self.max_age is not None else {}
        headers = {"Vary": "Accept", **cached}
        if self.json and JSON_TYPE in accept:
            body, headers["Content-Type"] = json.dumps(document).encode(), JSON_TYPE
        else:
            body, headers["Content-Type"] = _html(document), HTML_TYPE if HTML_TYPE in accept else "text/html; charset=utf-8"
        if self.compress and "gzip" in request.headers.get("accept-encoding", ""):
            body, headers["Content-Encoding"] = gzip.compress(body, mtime=0), "gzip"
        return Answer(200, headers, body)

    def _legacy(self, project: Project, version: str | None) -> Answer:
        releases: dict[str, list[dict[str, Any]]] = {}
        for name, entry in project.files.items():
            releases.setdefault(version_of(name), []).append(_legacy_file(name, entry))
        chosen = version or max(releases, default="")
        if chosen not in releases:
            return Answer(404)
        document = {
            "info": {"name": project.name, "version": chosen},
            "last_serial": project.serial,
            "urls": releases[chosen],
            **({} if version else {"releases": releases}),
        }
        headers = {
            "Content-Type": "application/json",
            "X-PyPI-Last-Serial": str(project.serial),
            "Cache-Control": "max-age=900",
        }
        return Answer(200, headers, json.dumps(document).encode())

    def _conditional(self, request: Request, answer: Answer) -> Answer:
        """Validators, and 304 to a request whose condition holds (RFC 9110 section 13)."""
        headers = dict(answer.headers)
        if not self.etags:
            headers.pop("ETag", None)
        elif "ETag" not in headers:
            headers["ETag"] = _etag(answer.body)
        asked = request.headers
        if "if-none-match" in asked:
            unchanged = "ETag" in headers and headers["ETag"] in asked["if-none-match"]
        else:
            unchanged = "Last-Modified" in headers and asked.get("if-modified-since") == headers["Last-Modified"]
        if not unchanged:
            return Answer(answer.status, headers, answer.body, answer.ranges)
        return Answer(304, {name: value for name, value in headers.items() if not name.startswith("Content-")})


def _legacy_file(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A file as the legacy JSON API has it."""
    yanked = entry.get("yanked", False)
    return {
        "filename": name,
        "url": entry["url"],
        "digests": entry["hashes"],
        "packagetype": "bdist_wheel" if name.endswith(".whl") else "sdist",
        "requires_python": entry.get("requires-python"),
        "size": entry.get("size"),
        "upload_time_iso_8601": entry.get("upload-time"),
        "yanked": yanked is not False,
        "yanked_reason": yanked if isinstance(yanked, str) else None,
    }


def _etag(body: bytes | memoryview) -> str:
    return f'"{md5_of(body)}"'


def _html(document: Mapping[str, Any]) -> bytes:
    """A JSON document as PEP 503 writes it."""
    lines = ['<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0">']
    status = document.get("project-status")
    if status:
        lines += [
            f'<meta name="pypi:project-status{suffix}" content="{html.escape(status[key])}">'
            for key, suffix in (("status", ""), ("reason", "-reason"))
            if key in status
        ]
    lines.append("</head><body>")
    lines += [f'<a href="/simple/{each["name"]}/">{each["name"]}</a><br>' for each in document.get("projects", ())]
    for each in document.get("files", ()):
        strongest = next(iter(each.get("hashes", {}).items()), None)
        attributes = {"href": each["url"] + (f"#{strongest[0]}={strongest[1]}" if strongest else "")}
        if "requires-python" in each:
            attributes["data-requires-python"] = each["requires-python"]
        if each.get("yanked", False) is not False:
            attributes["data-yanked"] = "" if each["yanked"] is True else each["yanked"]
        metadata = each.get("core-metadata")
        if metadata:
            text = "true" if metadata is True else "sha256=" + metadata["sha256"]
            attributes |= {"data-core-metadata": text, "data-dist-info-metadata": text}
        if "gpg-sig" in each:
            attributes["data-gpg-sig"] = str(each["gpg-sig"]).lower()
        shown = " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
        lines.append(f"<a {shown}>{html.escape(each['filename'])}</a><br>")
    lines.append("</body></html>")
    return "\n".join(lines).encode()
