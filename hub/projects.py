"""Projects and authentication policies as rows of the store, and endpoints held to their policy."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from hub import policies
from hub.clients import Client
from hub.endpoints import Manager
from hub.policies import PolicyRecord, ProjectRecord
from hub.store import tables
from hub.store.store import Store
from hub.web import ApiError, Forbidden, Invalid, NotFound, TooMany

MOST_PROJECTS = 100
"""That one identity makes."""
MOST_POLICIES = 100
"""Of one project."""
PART = 50
"""Of either, that are read together."""

_PROJECT, _ADMIN, _POLICY = tables.project.c, tables.project_admin.c, tables.policy.c


class Projects:
    """Keeps projects and their policies. Who is no admin of a project is not told that there is one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def projects(self, caller: Client) -> AsyncIterator[dict[str, ProjectRecord]]:
        """Returns the projects of which the caller is an admin, by id, a part at a time: others may name any number."""
        own = select(tables.project).where(_PROJECT.id.in_(_own(caller)))
        async for rows in self._store.parts(own, _PROJECT.id, most=PART):
            yield {row.id: _project(row) for row in rows}

    async def project(self, caller: Client, project_id: str) -> ProjectRecord:
        """Returns a project of the caller's.

        Raises:
            NotFound: there is none of which the caller is an admin.
        """
        row = await self._store.one(
            select(tables.project).where(_PROJECT.id == project_id, _PROJECT.id.in_(_own(caller)))
        )
        if row is None:
            raise NotFound("project", project_id)
        return _project(row)

    async def add_project(self, caller: Client, record: ProjectRecord) -> str:
        """Keeps a new project; returns its id.

        Raises:
            TooMany: the caller has made as many as one may.
        """
        project_id = str(uuid.uuid4())

        def add(db: Connection) -> None:
            made = select(func.count()).where(_PROJECT.made_by == caller.identity.id)
            _check_count(db.execute(made).scalar_one(), MOST_PROJECTS, "projects")
            kept = {"id": project_id, "made_by": caller.identity.id, "record": json.dumps(asdict(record))}
            db.execute(insert(tables.project).values(kept))
            _set_admins(db, project_id, record.admin_ids)

        await self._store.write(add)
        return project_id

    async def change_project(self, project_id: str, record: ProjectRecord) -> None:
        """Keeps other values for a project that exists."""

        def change(db: Connection) -> None:
            kept = {"record": json.dumps(asdict(record))}
            db.execute(update(tables.project).where(_PROJECT.id == project_id).values(kept))
            db.execute(delete(tables.project_admin).where(_ADMIN.project == project_id))
            _set_admins(db, project_id, record.admin_ids)

        await self._store.write(change)

    async def delete_project(self, project_id: str) -> None:
        """Forgets a project.

        Raises:
            ApiError: 409 while it has policies.
        """

        def forget(db: Connection) -> None:
            if db.execute(select(_POLICY.id).where(_POLICY.project == project_id).limit(1)).first() is not None:
                raise ApiError(409, "CONFLICT", "The project has policies; delete them before")
            db.execute(delete(tables.project_admin).where(_ADMIN.project == project_id))
            db.execute(delete(tables.project).where(_PROJECT.id == project_id))

        await self._store.write(forget)

    async def policies(self, caller: Client) -> AsyncIterator[dict[str, PolicyRecord]]:
        """Returns the policies of the caller's projects, by id, a part at a time."""
        own = select(tables.policy).where(_POLICY.project.in_(_own(caller)))
        async for rows in self._store.parts(own, _POLICY.id, most=PART):
            yield {row.id: _policy(row) for row in rows}

    async def policy(self, caller: Client, policy_id: str) -> PolicyRecord:
        """Returns a policy of a project of the caller's.

        Raises:
            NotFound: there is none.
        """
        row = await self._store.one(
            select(tables.policy).where(_POLICY.id == policy_id, _POLICY.project.in_(_own(caller)))
        )
        if row is None:
            raise NotFound("policy", policy_id)
        return _policy(row)

    async def add_policy(self, caller: Client, record: PolicyRecord) -> str:
        """Keeps a new policy in a project of the caller's; returns its id.

        Raises:
            NotFound, TooMany: the project is not there, or has as many as it may.
        """
        await self.project(caller, record.project_id)
        policy_id = str(uuid.uuid4())

        def add(db: Connection) -> None:
            _check_room(db, record.project_id)
            db.execute(insert(tables.policy).values({"id": policy_id, **_kept(record)}))

        await self._store.write(add)
        return policy_id

    async def change_policy(self, caller: Client, policy_id: str, before: PolicyRecord, record: PolicyRecord) -> None:
        """Keeps other values for a policy that exists, maybe in another project of the caller's.

        Raises:
            NotFound, TooMany: the other project is not there, or has as many as it may.
        """
        moved = record.project_id != before.project_id
        if moved:
            await self.project(caller, record.project_id)

        def change(db: Connection) -> None:
            if moved:
                _check_room(db, record.project_id)
            db.execute(update(tables.policy).where(_POLICY.id == policy_id).values(_kept(record)))

        await self._store.write(change)

    async def delete_policy(self, policy_id: str) -> None:
        """Forgets a policy; an endpoint that has it lets nobody in from then on."""
        await self._store.execute(delete(tables.policy).where(_POLICY.id == policy_id))

    async def check_own(self, caller: Client, known: Manager | None, policy_id: str | None) -> None:
        """Holds who registers an endpoint to a policy that they may change: who may change it decides who gets in.

        Raises:
            Invalid: it is not the one that the endpoint has, and none of a project of the caller's.
        """
        if policy_id is None or (known is not None and known.policy == policy_id):
            return
        try:
            await self.policy(caller, policy_id)
        except NotFound:
            text = f"authentication_policy: there is no policy {policy_id} of a project of which you are an admin"
            raise Invalid(text) from None

    async def check_admitted(self, caller: Client, manager: Manager) -> None:
        """Holds who submits to the endpoint to its policy, if it has one.

        Raises:
            ApiError: 403 when the caller does not satisfy it, or it is not there any more.
        """
        if manager.policy is None:
            return
        row = await self._store.one(select(tables.policy).where(_POLICY.id == manager.policy))
        if row is None:
            raise Forbidden("The authentication policy of this endpoint was deleted; its owner has to name another one")
        policies.check(manager.policy, _policy(row), caller)


def _own(caller: Client) -> Any:
    """Selects the ids of the projects of which one of the caller's identities is an admin."""
    return select(_ADMIN.project).where(_ADMIN.identity.in_([identity.id for identity in caller.identities]))


def _set_admins(db: Connection, project_id: str, admins: Sequence[str]) -> None:
    db.execute(insert(tables.project_admin), [{"project": project_id, "identity": admin} for admin in admins])


def _check_room(db: Connection, project_id: str) -> None:
    if db.execute(select(_PROJECT.id).where(_PROJECT.id == project_id)).first() is None:
        raise NotFound("project", project_id)
    there = select(func.count()).where(_POLICY.project == project_id)
    _check_count(db.execute(there).scalar_one(), MOST_POLICIES, "policies in this project")


def _check_count(there: int, most: int, what: str) -> None:
    if there >= most:
        raise TooMany(f"You have {there} {what}, the most is {most}; delete one that is not needed any more")


def _kept(record: PolicyRecord) -> dict[str, Any]:
    return {"project": record.project_id, "record": json.dumps(asdict(record))}


def _project(row: Row[Any]) -> ProjectRecord:
    return ProjectRecord(**json.loads(row.record))


def _policy(row: Row[Any]) -> PolicyRecord:
    return PolicyRecord(**json.loads(row.record))
