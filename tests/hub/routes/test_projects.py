"""Projects and policies by REST: whose they are; and endpoints that hold those who submit to their policy."""

from __future__ import annotations

import pytest

from hub import projects as module
from hub.amqp.passwords import Passwords
from hub.callers import Callers
from hub.commands import Commands
from hub.limits import Limits, Turns
from hub.outcomes import Outcomes
from hub.projects import Projects
from hub.registration import Registrar
from hub.routes.endpoints import EndpointRoutes
from hub.routes.projects import ProjectRoutes
from hub.scopes import AUTH, MANAGE_PROJECTS
from hub.shared_lock import SharedLock
from hub.stopping import Stopper
from hub.submission import Submitter
from hub.tokens import Tokens
from tests.hub.units import ADMIN, ALICE, BOB, CLIENTS, CONFIG, Rest, StubBroker, add_function, new_id, run

PROJECT = {"display_name": "Site", "contact_email": "site@example.org", "admin_ids": [ADMIN.identity.id]}
POLICY = {"display_name": "Ours", "description": "those of ours", "domain_constraints_include": ["example.org"]}
ENDPOINT = {"endpoint_name": "e", "multi_user": True, "public": True}


class Site:
    """REST calls about projects and endpoints."""

    def __init__(self, store):
        tokens, projects, broker = (
            Tokens(store, Callers(store, CLIENTS), Turns(Limits())),
            Projects(store),
            StubBroker(),
        )
        registrar = Registrar(store, broker, Passwords(store), CONFIG, Outcomes(store, broker), Limits())
        commands = Commands(store, broker, Passwords(store), CONFIG, Callers(store, CLIENTS))
        submitter = Submitter(store, broker, commands, Limits(), SharedLock())
        stopper = Stopper(store, broker, Outcomes(store, broker), SharedLock())
        endpoints = EndpointRoutes(store, tokens, projects, registrar, submitter, stopper)
        self.store = store
        self.rest = Rest([*ProjectRoutes(tokens, projects).routes(), *endpoints.routes()], store)

    def auth(self, method, path, caller=ADMIN, body=None, scope=MANAGE_PROJECTS):
        return run(self.rest(method, f"/v2/api/{path}", caller, body=body, scope=scope))

    def made(self, what, caller=ADMIN, **values):
        answer = self.auth("POST", {"project": "projects", "policy": "policies"}[what], caller, {what: values})
        assert answer.status == 200, answer.json
        return answer.json[what]["id"]

    def register(self, caller=ADMIN, endpoint=None, **values):
        method, path = ("PUT", f"/v3/endpoints/{endpoint}") if endpoint else ("POST", "/v3/endpoints")
        return run(self.rest(method, path, caller, body={**ENDPOINT, **values}))

    def submit(self, endpoint, caller):
        body = {"tasks": {self.function: ["args"]}}
        return run(self.rest("POST", f"/v3/endpoints/{endpoint}/submit", caller, body=body))

    def submit_batch(self, endpoint, caller):
        return run(self.rest("POST", "/v2/submit", caller, body={"tasks": [[self.function, endpoint, "args"]]}))


@pytest.fixture
def site(store):
    made = Site(store)
    made.function = new_id()
    run(add_function(store, made.function, public=True))
    made.project = made.made("project", **PROJECT)
    return made


def test_a_project_is_shown_changed_and_forgotten(site):
    path = f"projects/{site.project}"
    shown = site.auth("GET", path).json["project"]
    assert (shown["id"], shown["display_name"], shown["admin_ids"]) == (site.project, "Site", [ADMIN.identity.id])
    assert site.auth("GET", "projects").json["projects"] == [shown]
    both = [ADMIN.identity.id, ALICE.identities[1].id]
    changed = site.auth("PUT", path, body={"project": {"admin_ids": both}}).json["project"]
    assert (changed["admin_ids"], changed["display_name"]) == (both, "Site")
    assert site.auth("GET", path, ALICE).json["project"] == changed, "through a linked identity"
    policy = site.made("policy", project_id=site.project, **POLICY)
    assert site.auth("DELETE", path).status == 409
    assert site.auth("DELETE", f"policies/{policy}").json["policy"]["id"] == policy
    assert site.auth("DELETE", path).json["project"] == changed
    assert site.auth("GET", "projects").json["projects"] == []


def test_a_policy_is_shown_changed_and_forgotten(site):
    policy = site.made("policy", project_id=site.project, **POLICY)
    path = f"policies/{policy}"
    shown = site.auth("GET", path).json["policy"]
    assert shown == {
        "id": policy,
        "project_id": site.project,
        **POLICY,
        "domain_constraints_exclude": None,
        "authentication_assurance_timeout": None,
        "high_assurance": False,
        "required_mfa": False,
    }
    assert site.auth("GET", "policies").json["policies"] == [shown]
    other = site.made("project", **PROJECT)
    moved = site.auth("PUT", path, body={"policy": {"project_id": other, "description": "new"}}).json["policy"]
    assert moved == {**shown, "project_id": other, "description": "new"}
    assert site.auth("DELETE", path).status == 200
    assert site.auth("GET", path).status == 404


def test_who_is_no_admin_is_not_told_that_there_is_one(site):
    policy = site.made("policy", project_id=site.project, **POLICY)
    assert site.auth("GET", "projects", BOB).json == {"projects": []}
    assert site.auth("GET", "policies", BOB).json == {"policies": []}
    for path, what in ((f"projects/{site.project}", "project"), (f"policies/{policy}", "policy")):
        for method in ("GET", "PUT", "DELETE"):
            answer = site.auth(method, path, BOB, {what: {}})
            assert (answer.status, answer.json["code"]) == (404, f"{what.upper()}_NOT_FOUND")
    into = {"policy": {"project_id": site.project, **POLICY}}
    assert site.auth("POST", "policies", BOB, into).status == 404
    theirs = site.made("project", BOB, **{**PROJECT, "admin_ids": [BOB.identity.id]})
    assert site.auth("PUT", f"policies/{policy}", body={"policy": {"project_id": theirs}}).status == 404
    assert site.auth("GET", "projects/x").status == 404


def test_no_more_than_one_may_have(site, monkeypatch):
    monkeypatch.setattr(module, "MOST_PROJECTS", 2)
    monkeypatch.setattr(module, "MOST_POLICIES", 1)
    second = site.made("project", **PROJECT)
    assert site.auth("POST", "projects", body={"project": PROJECT}).status == 429
    policy = site.made("policy", project_id=site.project, **POLICY)
    full = {"policy": {**POLICY, "project_id": site.project}}
    assert site.auth("POST", "policies", body=full).status == 429
    other = site.made("policy", project_id=second, **POLICY)
    assert site.auth("PUT", f"policies/{other}", body=full).status == 429
    assert site.auth("PUT", f"policies/{policy}", body=full).status == 200


def test_who_may_name_a_policy_for_an_endpoint(site):
    policy = site.made("policy", project_id=site.project, **POLICY)
    refused = site.register(BOB, authentication_policy=policy)
    assert (refused.status, "authentication_policy" in refused.json["message"]) == (422, True)
    assert site.register(authentication_policy=new_id()).status == 422
    assert site.register(authentication_policy="x").status == 422
    both = {"admins": [BOB.identity.id], "authentication_policy": policy}
    endpoint = site.register(**both).json["endpoint_id"]
    assert site.register(BOB, endpoint, **both).status == 200, "it has this one already"
    assert run(site.rest("GET", f"/v2/endpoints/{endpoint}", BOB)).json["authentication_policy"] == policy
    assert site.register(BOB, endpoint, admins=[BOB.identity.id]).status == 200
    assert site.register(BOB, endpoint, **both).status == 422


@pytest.mark.parametrize("submit", [Site.submit, Site.submit_batch])
def test_an_endpoint_lets_in_whom_its_policy_admits(site, submit):
    policy = site.made("policy", project_id=site.project, **POLICY)
    endpoint = site.register(authentication_policy=policy).json["endpoint_id"]
    assert submit(site, endpoint, BOB).status == 200
    path = f"policies/{policy}"
    site.auth("PUT", path, body={"policy": {"domain_constraints_exclude": ["*.org"]}})
    refused = submit(site, endpoint, BOB)
    assert (refused.status, "'Ours'" in refused.json["message"]) == (403, True)
    assert run(site.rest("GET", f"/v2/endpoints/{endpoint}/status", BOB)).status == 200
    site.auth("PUT", path, body={"policy": {"domain_constraints_exclude": None}})
    assert submit(site, endpoint, BOB).status == 200
    site.auth("DELETE", path)
    assert "was deleted" in submit(site, endpoint, ADMIN).json["message"]


def test_a_token_must_be_for_projects(site):
    for scope in ("openid", f"urn:globus:auth:scope:{AUTH}:view_identities"):
        answer = site.auth("GET", "projects", scope=scope)
        assert (answer.status, answer.json["code"]) == (403, "ConsentRequired")
        assert answer.json["authorization_parameters"]["required_scopes"] == [MANAGE_PROJECTS]
    assert run(site.rest("GET", "/v2/api/projects", ADMIN)).status == 403
    assert run(site.rest("GET", "/v2/api/projects")).status == 401
