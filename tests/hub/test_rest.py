"""The REST calls with the unmodified public SDK: who may do what, and errors that the SDK understands."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing

import globus_sdk
import pytest
from globus_compute_sdk import Client
from globus_compute_sdk.sdk.auth.auth_client import ComputeAuthClient
from globus_compute_sdk.sdk.auth.globus_app import get_globus_app
from globus_compute_sdk.sdk.utils.gare import gare_handler
from globus_sdk import ComputeClientV3, ConfidentialAppAuthClient

pytestmark = pytest.mark.system

COMPUTE_SCOPE = Client.FUNCX_SCOPE


@pytest.fixture
def refused():
    """Asserts that a call is refused with a status, and gives the error."""

    def refused(status, call, *args, **kwargs):
        with pytest.raises(globus_sdk.GlobusAPIError) as error:
            call(*args, **kwargs)
        assert error.value.http_status == status, error.value
        assert error.value.code
        assert error.value.message
        return error.value

    return refused


@pytest.fixture
def auth(client, hub):
    """Globus Auth's client for a user's credential."""
    client("alice")  # sets the environment
    return lambda user, secret=None: ConfidentialAppAuthClient(
        hub.users[user].client_id, secret or hub.users[user].client_secret
    )


def square(x):
    return x * x


def test_tokens_are_stored_hashed_and_can_be_revoked(auth, hub, refused):
    grants = auth("alice").oauth2_client_credentials_tokens([COMPUTE_SCOPE, "openid"])
    servers = grants.by_resource_server
    assert set(servers) == {"funcx_service", "auth.globus.org"}
    token = servers["funcx_service"]["access_token"]
    compute = ComputeClientV3(authorizer=globus_sdk.AccessTokenAuthorizer(token), base_url=hub.url)
    with closing(sqlite3.connect(hub.folder / "hub.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for file in hub.folder.glob("hub.db*"):
        assert token.encode() not in file.read_bytes()
    unknown = str(uuid.uuid4())
    refused(404, compute.get_endpoint_allowlist, unknown)
    auth("bob").oauth2_revoke_token(token)
    refused(404, compute.get_endpoint_allowlist, unknown)
    auth("alice").oauth2_revoke_token(token)
    refused(401, compute.get_endpoint_allowlist, unknown)


def test_wrong_credentials_are_refused(auth, refused, hub):
    refused(401, auth("alice", "wrong").oauth2_client_credentials_tokens, [COMPUTE_SCOPE])
    refused(400, auth("alice").oauth2_client_credentials_tokens, ["urn:globus:auth:scope:all"])
    tokens = auth("alice").oauth2_client_credentials_tokens(["openid"])
    for_auth = globus_sdk.AccessTokenAuthorizer(tokens["access_token"])
    refused(403, ComputeClientV3(authorizer=for_auth, base_url=hub.url).register_function, {})
    refused(401, ComputeClientV3(base_url=hub.url).register_function, {})


def test_one_login_for_all_services_that_a_client_uses(client, refused, hub):
    client("alice")
    data_access = globus_sdk.scopes.GCSCollectionScopes(str(uuid.uuid4())).data_access.with_optional(True)
    services = {
        each.resource_server: list(each)
        for each in (globus_sdk.scopes.FlowsScopes, globus_sdk.scopes.GroupsScopes, globus_sdk.scopes.SearchScopes)
    }
    transfer = globus_sdk.scopes.TransferScopes
    services[transfer.resource_server] = [transfer.all.with_dependency(data_access)]
    with get_globus_app() as app:
        app.add_scope_requirements({**services, "auth.globus.org": ComputeAuthClient.default_scope_requirements})
        gcc = Client(app=app)
        app.login(force=True)
        assert gcc.register_function(square)
        assert ComputeAuthClient(app=app).userinfo()["preferred_username"] == "alice@example.org"
        for service in services:
            foreign = app.get_authorizer(service)
            refused(403, ComputeClientV3(authorizer=foreign, base_url=hub.url).register_function, {})


def test_userinfo_and_identities(client):
    client("alice")
    with get_globus_app() as app:
        app.add_scope_requirements({"auth.globus.org": ComputeAuthClient.default_scope_requirements})
        ac = ComputeAuthClient(app=app)
        me = ac.userinfo()
        assert me["preferred_username"] == "alice@example.org"
        assert [i["username"] for i in me["identity_set"]] == ["alice@example.org", "al@other.example"]
        assert ac.get_identities(ids=me["sub"])["identities"][0]["username"] == "alice@example.org"
        assert ac.get_identities(usernames="bob@example.org")["identities"][0]["name"] == "bob"


def test_who_lacks_the_scope_for_projects_is_sent_to_log_in_with_it(client, refused):
    client("rooty")
    with get_globus_app() as app:
        auth = globus_sdk.AuthClient(app=app)
        refused(403, auth.get_projects)
        assert gare_handler(app.login, auth.get_projects).data == {"projects": []}


def test_an_endpoint_with_a_policy_that_a_login_cannot_meet(client, refused):
    function = client("bob").register_function(square)
    admin = client("admin")
    with admin.app as app:
        auth = ComputeAuthClient(app=app)
        project = auth.create_project("Site", "s@example.org", admin_ids=auth.userinfo()["sub"])["project"]["id"]
        policy = {"project_id": project, "display_name": "P", "description": "D"}
        made = auth.create_policy(**policy, domain_constraints_include=["*.example.org"])["policy"]["id"]
        own = admin.register_endpoint("e", None, {}, multi_user=True, auth_policy=made)["endpoint_id"]
        assert admin.get_endpoint_metadata(own)["authentication_policy"] == made
        error = refused(403, client("bob").run, 1, endpoint_id=own, function_id=function)
        assert "'P'" in error.message
        refused(409, auth.delete_project, project)


def test_functions_belong_to_who_registered_them(client, refused, manager):
    private = client("alice").register_function(square)
    public = client("alice").register_function(square, public=True, description="x²")
    bob = client("bob")
    assert bob.get_function(public)["description"] == "x²"
    refused(403, bob.get_function, private)
    refused(403, bob.run, 1, endpoint_id=manager.id, function_id=private)
    refused(403, bob.delete_function, public)
    client("alice").delete_function(private)
    refused(404, client("alice").get_function, private)


def test_submitting_to_what_is_not_there(client, refused, manager):
    gcc = client("alice")
    function = gcc.register_function(square)
    unknown = str(uuid.uuid4())
    assert "endpoint" in refused(404, gcc.run, 1, endpoint_id=unknown, function_id=function).message
    assert "function" in refused(404, gcc.run, 1, endpoint_id=manager.id, function_id=unknown).message
    refused(404, gcc.get_task, unknown)
    batch = gcc.create_batch(task_group_id=unknown)
    batch.add(function, (1,))
    refused(404, gcc.batch_run, manager.id, batch)
    submit = gcc._compute_web_client.v3.submit
    assert "tasks" in refused(422, submit, manager.id, {"tasks": {function: [1]}}).message
    assert "tasks" in refused(422, submit, manager.id, {}).message
    refused(404, gcc._compute_web_client.v2.get, "/v2/no/such/call")


def test_tasks_are_shown_to_their_owner_only(client, refused, manager):
    gcc = client("alice")
    task = gcc.run(1, endpoint_id=manager.id, function_id=gcc.register_function(square))
    group = gcc._compute_web_client.v2.get_task(task)["task_group_id"]
    bob = client("bob")
    refused(404, bob.get_task, task)
    assert bob.get_batch_result([task]) == {}
    refused(404, bob._compute_web_client.v2.get_task_group, group)


def test_registering_again_keeps_the_id(client, refused):
    admin = client("admin")
    own = admin.register_endpoint("e", None, {"hostname": "one"}, multi_user=True, public=False)["endpoint_id"]
    assert admin.register_endpoint("e", own, {"hostname": "two"}, multi_user=True, public=False)["endpoint_id"] == own
    assert admin.get_endpoint_metadata(own)["hostname"] == "two"
    refused(403, client("bob").register_endpoint, "e", own, {}, multi_user=True)
    refused(404, client("bob").register_endpoint, "e", str(uuid.uuid4()), {}, multi_user=True)
    refused(422, client("bob").register_endpoint, "e", None, {}, multi_user=True, high_assurance=True)


def test_an_endpoint_for_a_single_user_is_its_owners(client, refused):
    owner = client("admin")
    single = owner.register_endpoint("e", None, {}, multi_user=False, public=True)["endpoint_id"]
    bob = client("bob")
    function = bob.register_function(square, public=True)
    refused(403, bob.run, 1, endpoint_id=single, function_id=function)
    refused(403, bob.get_endpoint_status, single)
    refused(403, bob.delete_endpoint, single)
    assert client("admin").run(1, endpoint_id=single, function_id=function)


def test_an_endpoint_that_is_not_public_can_be_used(client, refused):
    own = client("admin").register_endpoint("e", None, {}, multi_user=True, public=False)["endpoint_id"]
    bob = client("bob")
    assert bob.run(1, endpoint_id=own, function_id=bob.register_function(square))
    refused(403, bob.delete_endpoint, own)


def test_allowed_functions(client, refused):
    alice = client("alice")
    allowed, other = alice.register_function(square), alice.register_function(square)
    restricted = client("admin").register_endpoint(
        "e", None, {}, multi_user=True, public=True, allowed_functions=[allowed]
    )["endpoint_id"]
    assert client("alice").get_allowed_functions(restricted)["functions"] == [allowed]
    assert client("alice").run(1, endpoint_id=restricted, function_id=allowed)
    refused(403, client("alice").run, 1, endpoint_id=restricted, function_id=other)


def test_lock_cuts_off_and_delete_forgets(client, refused, manager):
    gcc = client("alice")
    task = gcc.run(1, endpoint_id=manager.id, function_id=gcc.register_function(square))
    admin = client("admin")
    admin.stop_endpoint(manager.id)
    refused(423, admin.register_endpoint, "demo", manager.id, {}, multi_user=True)
    assert manager.id in [e["uuid"] for e in client("alice").get_endpoints(role="any")]
    assert manager.id not in [e["uuid"] for e in client("alice").get_endpoints()]
    client("admin").delete_endpoint(manager.id)
    refused(404, client("admin").get_endpoint_status, manager.id)
    ended = client("alice")._compute_web_client.v2.get_task(task)
    assert (ended["status"], "deleted" in ended["exception"]) == ("failed", True)
