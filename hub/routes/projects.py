"""Globus Auth's calls about projects and authentication policies, for the admins of the projects."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from hub.clients import Client
from hub.policies import ProjectRecord, decode_policy, decode_project
from hub.projects import Projects
from hub.scopes import AUTH, MANAGE_PROJECTS
from hub.tokens import Tokens
from hub.web import Json, json_list, json_object, path_id


class ProjectRoutes:
    """Calls under `/v2/api/projects` and `/v2/api/policies`."""

    def __init__(self, tokens: Tokens, projects: Projects) -> None:
        self._tokens = tokens
        self._projects = projects

    def routes(self) -> list[Route]:
        """Lists the calls."""
        return [
            Route("/v2/api/projects", self.projects, methods=["GET"]),
            Route("/v2/api/projects", self.add_project, methods=["POST"]),
            Route("/v2/api/projects/{id}", self.project, methods=["GET"]),
            Route("/v2/api/projects/{id}", self.change_project, methods=["PUT"]),
            Route("/v2/api/projects/{id}", self.delete_project, methods=["DELETE"]),
            Route("/v2/api/policies", self.policies, methods=["GET"]),
            Route("/v2/api/policies", self.add_policy, methods=["POST"]),
            Route("/v2/api/policies/{id}", self.policy, methods=["GET"]),
            Route("/v2/api/policies/{id}", self.change_policy, methods=["PUT"]),
            Route("/v2/api/policies/{id}", self.delete_policy, methods=["DELETE"]),
        ]

    async def projects(self, request: Request) -> StreamingResponse:
        """Lists the projects of which the caller is an admin."""
        found = self._projects.projects(await self._caller(request))
        shown = ([_shown(*project) for project in part.items()] async for part in found)
        return json_list(shown, b'{"projects":[', b"]}")

    async def add_project(self, request: Request) -> Json:
        """Makes a project; the caller need not be among its admins."""
        caller = await self._caller(request)
        record = decode_project(await json_object(request))
        return Json({"project": _shown(await self._projects.add_project(caller, record), record)})

    async def project(self, request: Request) -> Json:
        """Shows a project."""
        project_id = path_id(request, "project")
        record = await self._projects.project(await self._caller(request), project_id)
        return Json({"project": _shown(project_id, record)})

    async def change_project(self, request: Request) -> Json:
        """Changes what is named of a project."""
        project_id = path_id(request, "project")
        before = await self._projects.project(await self._caller(request), project_id)
        record = decode_project(await json_object(request), before)
        await self._projects.change_project(project_id, record)
        return Json({"project": _shown(project_id, record)})

    async def delete_project(self, request: Request) -> Json:
        """Forgets a project without policies."""
        project_id = path_id(request, "project")
        record = await self._projects.project(await self._caller(request), project_id)
        await self._projects.delete_project(project_id)
        return Json({"project": _shown(project_id, record)})

    async def policies(self, request: Request) -> StreamingResponse:
        """Lists the policies of the caller's projects."""
        found = self._projects.policies(await self._caller(request))
        shown = ([record.shown(policy_id) for policy_id, record in part.items()] async for part in found)
        return json_list(shown, b'{"policies":[', b"]}")

    async def add_policy(self, request: Request) -> Json:
        """Makes a policy in a project of the caller's."""
        caller = await self._caller(request)
        record = decode_policy(await json_object(request))
        return Json({"policy": record.shown(await self._projects.add_policy(caller, record))})

    async def policy(self, request: Request) -> Json:
        """Shows a policy."""
        policy_id = path_id(request, "policy")
        record = await self._projects.policy(await self._caller(request), policy_id)
        return Json({"policy": record.shown(policy_id)})

    async def change_policy(self, request: Request) -> Json:
        """Changes what is named of a policy."""
        caller, policy_id = await self._caller(request), path_id(request, "policy")
        before = await self._projects.policy(caller, policy_id)
        record = decode_policy(await json_object(request), before)
        await self._projects.change_policy(caller, policy_id, before, record)
        return Json({"policy": record.shown(policy_id)})

    async def delete_policy(self, request: Request) -> Json:
        """Forgets a policy."""
        policy_id = path_id(request, "policy")
        record = await self._projects.policy(await self._caller(request), policy_id)
        await self._projects.delete_policy(policy_id)
        return Json({"policy": record.shown(policy_id)})

    async def _caller(self, request: Request) -> Client:
        return await self._tokens.caller(request, AUTH, MANAGE_PROJECTS)


def _shown(project_id: str, record: ProjectRecord) -> dict[str, Any]:
    """Shows a project as Globus Auth does."""
    return {
        "id": project_id,
        "project_name": record.display_name,
        "display_name": record.display_name,
        "contact_email": record.contact_email,
        "admin_ids": record.admin_ids,
        "admin_group_ids": None,
        "admins": {"identities": record.admin_ids, "groups": []},
    }
