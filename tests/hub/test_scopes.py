"""What a client asks for at a login: the forms of scopes, whose token each becomes, and what is no scope."""

from __future__ import annotations

import globus_sdk
import pytest
from globus_sdk import scopes as known

from hub.scopes import DEEPEST, LONGEST_SCOPE, MOST_SCOPES, by_resource_server, paths
from hub.web import ApiError

TRANSFER = "urn:globus:auth:scope:transfer.api.globus.org:all"
COLLECTION = "https://auth.globus.org/scopes/1b6e3a5c-0000-4000-8000-000000000001/data_access"
FLOW = "39be9a4c-56d3-4a4f-a1d1-58d3bd9f0b6c"
COLLECTIONS = [
    known.AuthScopes,
    known.ComputeScopes,
    known.FlowsScopes,
    known.GroupsScopes,
    known.NexusScopes,
    known.SearchScopes,
    known.TimersScopes,
    known.TransferScopes,
    known.GCSCollectionScopes(FLOW),
    known.GCSEndpointScopes(FLOW),
    globus_sdk.SpecificFlowClient(FLOW, app=None).scopes,
]


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda each: each.resource_server)
def test_clients_find_their_token_under_the_name_by_which_they_look(collection):
    """The scopes of each service that the public SDK knows."""
    asked = [str(scope) for scope in collection]
    assert asked
    assert by_resource_server(" ".join(asked)) == {collection.resource_server: asked}


def test_every_service_that_the_sdk_knows_is_tried():
    there = {name for name in dir(known) if name.endswith("Scopes")}
    assert there - {"SpecificFlowScopes"} == {type(each).__name__.lstrip("_") for each in COLLECTIONS} - {
        "SpecificFlowScopes"
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{TRANSFER}[*{COLLECTION} openid[email]] openid", [TRANSFER, "openid"]),
        (f"*{TRANSFER}", [TRANSFER]),
        (f"  openid   {TRANSFER}\nopenid ", ["openid", TRANSFER]),
    ],
)
def test_what_is_in_brackets_has_no_token_of_its_own(text, found):
    assert [scope for scopes in by_resource_server(text).values() for scope in scopes] == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "openid x",
        "openid[x]",
        "*",
        "**openid",
        "open*id",
        "openid[",
        "openid]",
        "openid[]",
        "openid[email]profile",
        "openid [email]",
        "openid[ email]",
        "openid[[email]]",
        "[openid]",
        "urn:globus:auth:scope::all",
        "urn:globus:auth:scope:transfer.api.globus.org:",
        "urn:globus:auth:scope:transfer.api.globus.org:a\u00e4",
        "urn:globus:auth:scope:transfer.api.globus.org/all",
        "urn:globus:auth:scope:funcx_service:all",
        "https://auth.globus.org/scopes/funcx_service/all",
        "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/some",
        "https://auth.globus.org/scopes/FACD7CCC-c5f4-42aa-916b-a0e270e2c2a9/all",
        "https://auth.example.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all",
        f"{TRANSFER}{'l' * LONGEST_SCOPE}",
        " ".join(f"{TRANSFER}{n}" for n in range(MOST_SCOPES + 1)),
    ],
    ids=lambda text: text[:70],
)
def test_what_is_no_scope_is_refused(text):
    with pytest.raises(ApiError) as refused:
        by_resource_server(text)
    assert (refused.value.status, refused.value.code) == (400, "invalid_scope")


def test_brackets_are_read_to_some_depth():
    def nested(depth):
        return "openid[" * depth + "email" + "]" * depth

    assert paths(nested(DEEPEST))[-1] == (*["openid"] * DEEPEST, "email")
    with pytest.raises(ApiError):
        by_resource_server(nested(DEEPEST + 1))
    with pytest.raises(ApiError):
        by_resource_server(nested(8_000))


def test_paths_lead_to_what_is_in_brackets():
    text = f"openid {TRANSFER}[*{COLLECTION}[email] profile] {TRANSFER}[profile]"
    assert paths(text) == [
        ("openid",),
        (TRANSFER,),
        (TRANSFER, COLLECTION),
        (TRANSFER, COLLECTION, "email"),
        (TRANSFER, "profile"),
    ]
