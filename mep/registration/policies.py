"""Authentication policies of Globus Auth, against which the service tries an endpoint's users; and projects, in which
policies lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import globus_sdk
from globus_sdk import MISSING
from globus_sdk.gare import to_gare
from globus_sdk.scopes import AuthScopes

from mep.profile.config import ManagerConfig
from mep.registration.errors import told
from mep.registration.login import remedy


@dataclass(frozen=True)
class Policy:
    """What a new policy demands. timeout: seconds that a login may be old, of any age without one."""

    display_name: str
    description: str
    include_domains: Sequence[str] | None = None
    exclude_domains: Sequence[str] | None = None
    high_assurance: bool = False
    mfa: bool = False
    timeout: int | None = None


@dataclass(frozen=True)
class Project:
    """A project that the login administers."""

    id: str
    name: str


class Policies:
    """Projects and policies of a login. Who has not consented to that yet is asked to log in, on the terminal."""

    def __init__(self, app: globus_sdk.GlobusApp, config: ManagerConfig) -> None:
        app.add_scope_requirements({AuthScopes.resource_server: [AuthScopes.openid, AuthScopes.manage_projects]})
        self._app = app
        self._remedy = remedy(app, config)
        self._client = globus_sdk.AuthClient(app=app)

    def projects(self) -> list[Project]:
        """The projects of this login. Raises RegistrationError."""
        answer = self._asked("to list projects", self._client.get_projects)
        return [Project(str(each["id"]), str(each["display_name"])) for each in answer["projects"]]

    def make_project(
        self, name: str, contact_email: str, admin_ids: Sequence[str], admin_groups: Sequence[str]
    ) -> Project:
        """A new project. Raises RegistrationError."""
        answer = self._asked(
            "to make a project",
            lambda: self._client.create_project(
                name, contact_email, admin_ids=list(admin_ids) or MISSING, admin_group_ids=list(admin_groups) or MISSING
            ),
        )
        return Project(str(answer["project"]["id"]), name)

    def make(self, project_id: str, policy: Policy) -> str:
        """The id of a new policy. Raises RegistrationError."""
        answer = self._asked(
            "to make a policy",
            lambda: self._client.create_policy(
                project_id=project_id,
                display_name=policy.display_name,
                description=policy.description,
                high_assurance=policy.high_assurance or MISSING,
                authentication_assurance_timeout=policy.timeout or MISSING,
                required_mfa=policy.mfa or MISSING,
                domain_constraints_include=policy.include_domains or MISSING,
                domain_constraints_exclude=policy.exclude_domains or MISSING,
            ),
        )
        return str(answer["policy"]["id"])

    def _asked(self, what: str, ask: Callable[[], globus_sdk.GlobusHTTPResponse]) -> globus_sdk.GlobusHTTPResponse:
        """The answer; after a login, where Globus Auth wants one, for example because the last one is too old."""
        with told(self._remedy, what=what):
            if isinstance(self._app, globus_sdk.UserApp) and self._app.login_required():
                self._app.login()
            try:
                return ask()
            except globus_sdk.GlobusAPIError as e:
                wanted = to_gare(e)
                if wanted is None or not isinstance(self._app, globus_sdk.UserApp):
                    raise
                self._app.login(auth_params=wanted.authorization_parameters)
                return ask()
