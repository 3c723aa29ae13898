"""Who may do what: the table of roles, the table of decisions, and what holds for all grants."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.access.principals import ANONYMOUS, OPERATOR, PARTS, PREFETCH, WARM, Principal, PrincipalKind
from proxy.access.rights import Access, Grant, GrantedRights, OpenReading
from proxy.access.roles import ALL, PERMITS, Extent, Permission, Role, Scope
from proxy.errors import RightsUnknown, StorageFailed

PAGE = (Path(__file__).parent.parent / "docs" / "rights.md").read_text("utf-8")
ALLOWED, HIDDEN, LOGIN = Access.ALLOWED, Access.HIDDEN, Access.LOGIN
READ, UPLOAD, MAINTAIN, ADMINISTER = Permission

ALICE, BOB, CAROL, DAVE = (Principal(PrincipalKind.USER, name) for name in ("alice", "bob", "carol", "dave"))
#: Acts for alice; has rights of its own.
ALICES = Principal(PrincipalKind.TOKEN, "t1", user="alice")
CI = Principal(PrincipalKind.TOKEN, "t2", user="ci", own=(Scope(Role.UPLOADER, Extent(("internal",), ("acme-*",))),))


def grant(role: Role, to: str, indexes: str = "internal", projects: str = ALL) -> Grant:
    return Grant(Scope(role, Extent(tuple(indexes.split()), tuple(projects.split()))), tuple(to.split()))


def first(index: str, project: str) -> str | None:
    return {"acme-web": "user:dave", "acme-ci": "user:ci"}.get(project)


RIGHTS = GrantedRights(
    [
        grant(Role.READER, "group:web user:carol"),
        grant(Role.READER, "anonymous", projects="open-?"),
        grant(Role.UPLOADER, "group:web", projects="acme-*"),
        grant(Role.UPLOADER, "user:bob", "public"),
        grant(Role.MAINTAINER, "user:dave user:ci", projects="acme-*"),
        grant(Role.ADMIN, "user:carol", "public", "six"),
    ],
    {"web": ["alice"]},
    first,
)


# -- the table of roles --------------------------------------------------------------------------------------------------------


def test_the_documentation_has_every_role_with_what_it_permits() -> None:
    rows = re.findall(r"^\| `(\w+)` \|((?: (?:yes|its own|)?\s*\|)+)$", PAGE, re.MULTILINE)
    heading = re.search(r"^\| role \|(.+)\|$", PAGE, re.MULTILINE)
    assert heading is not None
    columns = [Permission(each.strip()) for each in heading[1].split("|")]
    assert columns == list(Permission)
    documented = {
        Role(role): frozenset(each for each, cell in zip(columns, cells.split("|"), strict=False) if cell.strip())
        for role, cells in rows
    }
    assert documented == PERMITS


# -- the table of decisions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "permission", "index", "project", "access"),
    [
        # an index that no grant of a reader covers is open to read
        (ANONYMOUS, READ, "public", "six", ALLOWED),
        (ANONYMOUS, READ, "public", None, ALLOWED),
        (ANONYMOUS, UPLOAD, "public", "six", LOGIN),
        (BOB, UPLOAD, "public", "six", ALLOWED),
        (ALICE, UPLOAD, "public", "six", HIDDEN),
        (CAROL, UPLOAD, "public", "six", ALLOWED),
        (CAROL, ADMINISTER, "public", "six", ALLOWED),
        (CAROL, ADMINISTER, "public", None, HIDDEN),
        (CAROL, UPLOAD, "public", None, ALLOWED),
        (CAROL, MAINTAIN, "public", "six", ALLOWED),
        # one that is covered is restricted, whatever the name
        (ANONYMOUS, READ, "internal", "acme-web", LOGIN),
        (ANONYMOUS, READ, "internal", "never-heard-of", LOGIN),
        (ANONYMOUS, READ, "internal", "open-1", ALLOWED),
        (ANONYMOUS, READ, "internal", "open-12", LOGIN),
        (ANONYMOUS, READ, "internal", None, ALLOWED),
        (ALICE, READ, "internal", "never-heard-of", ALLOWED),
        (ALICES, READ, "internal", "acme-web", ALLOWED),
        (BOB, READ, "internal", "acme-web", HIDDEN),
        (BOB, READ, "internal", "never-heard-of", HIDDEN),
        (BOB, READ, "internal", "open-1", ALLOWED),
        (DAVE, READ, "internal", "acme-web", HIDDEN),
        (DAVE, MAINTAIN, "internal", "acme-web", ALLOWED),
        (DAVE, MAINTAIN, "internal", "acme-ci", HIDDEN),
        (DAVE, MAINTAIN, "internal", "acme-none", HIDDEN),
        (DAVE, UPLOAD, "internal", "acme-web", HIDDEN),
        (ALICE, UPLOAD, "internal", "acme-web", ALLOWED),
        (ALICE, UPLOAD, "internal", "other", HIDDEN),
        (ALICE, UPLOAD, "internal", None, ALLOWED),
        (CAROL, UPLOAD, "internal", None, HIDDEN),
        # a token
        (CI, UPLOAD, "internal", "acme-web", ALLOWED),
        (CI, READ, "internal", "acme-web", ALLOWED),
        (CI, READ, "internal", "other", HIDDEN),
        (CI, UPLOAD, "public", "acme-web", HIDDEN),
        (CI, MAINTAIN, "internal", "acme-ci", HIDDEN),
        (replace(ALICES, narrowed=(Extent(projects=("acme-web",)),)), READ, "internal", "acme-web", ALLOWED),
        (replace(ALICES, narrowed=(Extent(projects=("acme-web",)),)), READ, "internal", "acme-ci", HIDDEN),
        (replace(ALICES, narrowed=(Extent(("public",)),)), READ, "internal", "acme-web", HIDDEN),
        (replace(ALICES, narrowed=(Extent(("public",)),)), READ, "internal", "open-1", ALLOWED),
        # the proxy's own parts
        (WARM, READ, "internal", "acme-web", ALLOWED),
        (WARM, UPLOAD, "internal", "acme-web", HIDDEN),
        (PREFETCH, READ, "internal", "acme-web", ALLOWED),
        (OPERATOR, ADMINISTER, "internal", None, ALLOWED),
        (OPERATOR, MAINTAIN, "internal", "acme-web", ALLOWED),
    ],
)
def test_what_becomes_of_a_request(
    who: Principal, permission: Permission, index: str, project: str | None, access: Access
) -> None:
    assert RIGHTS.may(who, permission, index, project) is access


@pytest.mark.parametrize(
    ("who", "index", "everything"),
    [
        (ANONYMOUS, "public", True),
        (ANONYMOUS, "internal", False),
        (ALICE, "internal", True),
        (BOB, "internal", False),
        (CI, "internal", False),
        (ALICES, "internal", True),
        (replace(ALICES, narrowed=(Extent(projects=("acme-*",)),)), "internal", False),
        (replace(ALICES, narrowed=(Extent(projects=("acme-*",)),)), "public", True),
        (OPERATOR, "internal", True),
    ],
)
def test_who_reads_all_of_an_index(who: Principal, index: str, everything: bool) -> None:
    assert RIGHTS.reads_all(who, index) is everything


@pytest.mark.parametrize("who", [ANONYMOUS, ALICE, CI])
def test_without_a_grant_reading_is_open_and_nobody_may_change_anything(who: Principal) -> None:
    rights = OpenReading()
    refused = LOGIN if who is ANONYMOUS else HIDDEN
    assert rights.may(who, READ, "public", "six") is ALLOWED
    assert {rights.may(who, each, "public", "six") for each in (UPLOAD, MAINTAIN, ADMINISTER)} == {refused}


def test_while_it_is_unknown_who_uploaded_first_a_maintainer_has_no_answer_and_others_have() -> None:
    def unreadable(index: str, project: str) -> str | None:
        raise StorageFailed("the disk is gone")

    rights = GrantedRights([grant(Role.MAINTAINER, "user:dave"), grant(Role.ADMIN, "user:bob")], {}, unreadable)
    with pytest.raises(RightsUnknown, match="the disk is gone"):
        rights.may(DAVE, MAINTAIN, "internal", "six")
    assert rights.may(BOB, MAINTAIN, "internal", "six") is ALLOWED
    assert rights.may(ANONYMOUS, MAINTAIN, "internal", "six") is LOGIN


def test_the_audit_log_names_a_token_with_its_user() -> None:
    assert [str(each) for each in (ANONYMOUS, ALICE, ALICES, WARM)] == [
        "anonymous",
        "user:alice",
        "token:t1 of user:alice",
        "part:warm",
    ]
    assert (ALICES.uploads_as, ALICE.uploads_as, OPERATOR.uploads_as) == ("user:alice", "user:alice", "part:admin")


# -- what holds for all grants -------------------------------------------------------------------------------------------------

INDEXES, PROJECTS = ("internal", "public"), ("acme-web", "acme-ci", "six")
extents = st.builds(
    Extent,
    st.sampled_from([(ALL,), ("internal",), ("public",), INDEXES]),
    st.sampled_from([(ALL,), ("acme-*",), ("acme-w?b", "six"), ("*-ci",)]),
)
scopes = st.builds(Scope, st.sampled_from(Role), extents)
grants = st.builds(
    Grant,
    scopes,
    st.lists(
        st.sampled_from(["user:alice", "user:dave", "group:web", "token:t1", "token:t2", "authenticated", "anonymous"]),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
narrowed = st.lists(extents, max_size=3).map(tuple)
principals = st.one_of(
    st.sampled_from([ANONYMOUS, ALICE, BOB, DAVE, ALICES, CI, *PARTS]),
    st.builds(lambda own, narrowed: replace(CI, own=tuple(own), narrowed=narrowed), st.lists(scopes, max_size=3), narrowed),
    st.builds(lambda narrowed: replace(ALICES, narrowed=narrowed), narrowed),
)
questions = st.tuples(st.sampled_from(Permission), st.sampled_from(INDEXES), st.sampled_from([*PROJECTS, None]))
every_grant = st.lists(grants, max_size=5)
Question = tuple[Permission, str, str | None]


def rights_of(grants: list[Grant]) -> GrantedRights:
    return GrantedRights(grants, {"web": ["alice", "bob"]}, first)


@given(every_grant, grants, principals, questions)
def test_a_grant_takes_nothing_away_but_that_the_first_reader_restricts_its_indexes(
    there: list[Grant], added: Grant, who: Principal, question: Question
) -> None:
    before, after = rights_of(there), rights_of([*there, added])
    permission, index, _ = question
    restricts = (
        permission is READ
        and added.scope.role is Role.READER
        and added.scope.extent.includes_index(index)
        and not any(each.scope.role is Role.READER and each.scope.extent.includes_index(index) for each in there)
    )
    if before.may(who, *question) is ALLOWED and not restricts:
        assert after.may(who, *question) is ALLOWED


@given(every_grant, principals, questions)
def test_a_credential_takes_nothing_away_and_who_has_one_is_not_asked_for_it(
    there: list[Grant], who: Principal, question: Question
) -> None:
    rights = rights_of(there)
    anonymous, known = rights.may(ANONYMOUS, *question), rights.may(who, *question)
    assert anonymous in (ALLOWED, LOGIN)
    if not who.is_anonymous:
        assert known in (ALLOWED, HIDDEN)
    if anonymous is ALLOWED:
        assert known is ALLOWED


@given(every_grant, principals, st.lists(extents, min_size=1, max_size=3), questions)
def test_narrowing_never_widens(there: list[Grant], who: Principal, further: list[Extent], question: Question) -> None:
    rights = rights_of(there)
    narrower = replace(who, narrowed=(*who.narrowed, *further))
    if rights.may(narrower, *question) is ALLOWED:
        assert rights.may(who, *question) is ALLOWED
    if rights.reads_all(narrower, question[1]):
        assert rights.reads_all(who, question[1])


@given(every_grant, principals, st.sampled_from(INDEXES))
def test_who_reads_all_reads_each_whatever_its_name(there: list[Grant], who: Principal, index: str) -> None:
    rights = rights_of(there)
    if rights.reads_all(who, index):
        assert {rights.may(who, READ, index, each) for each in (*PROJECTS, "never-heard-of", None)} == {ALLOWED}


@given(
    every_grant, principals, st.sampled_from([READ, UPLOAD, ADMINISTER]), st.sampled_from(INDEXES), st.sampled_from(PROJECTS)
)
def test_whether_anything_was_uploaded_changes_nothing_but_what_maintainers_may(
    there: list[Grant], who: Principal, permission: Permission, index: str, project: str
) -> None:
    empty = GrantedRights(there, {"web": ["alice", "bob"]})
    assert rights_of(there).may(who, permission, index, project) is empty.may(who, permission, index, project)


@given(every_grant, principals, st.sampled_from(Permission), st.sampled_from(INDEXES), st.sampled_from(PROJECTS))
def test_who_may_something_with_a_project_may_ask_for_the_index(
    there: list[Grant], who: Principal, permission: Permission, index: str, project: str
) -> None:
    rights = rights_of(there)
    if permission is not ADMINISTER and rights.may(who, permission, index, project) is ALLOWED:
        assert rights.may(who, permission, index, None) is ALLOWED
