"""The authentication policy that the options of `mep configure` ask for, and the dialogue about where it is to lie."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from mep.daemon.failed import Failed, exit_codes

if TYPE_CHECKING:
    from mep.registration.policies import Policies, Policy

DEFAULT_NAME = "Globus Compute Authentication Policy"
DEFAULT_DESCRIPTION = "This policy was created automatically by Globus Compute."


def wanted(
    *,
    existing: str | None,
    subscription_id: str | None,
    display_name: str,
    description: str,
    project_id: str | None,
    allowed_domains: str | None,
    excluded_domains: str | None,
    high_assurance: bool,
    mfa: bool,
    timeout: int | None,
) -> Policy | None:
    """The policy to be made; None when no option is about a new one. `existing` is one that is there already.

    Raises:
        Failed: options that do not go together.
    """
    given = (project_id, allowed_domains, excluded_domains, timeout)
    new = (display_name, description) != (DEFAULT_NAME, DEFAULT_DESCRIPTION) or any(each is not None for each in given)
    if new and existing:
        raise Failed(os.EX_USAGE, "--auth-policy names a policy, and other options ask for a new one: choose")
    if high_assurance and not (subscription_id and (new or existing)):
        text = "--high-assurance needs --subscription-id, and a policy: --auth-policy or the options for a new one"
        raise Failed(os.EX_USAGE, text)
    if mfa and not new:
        raise Failed(os.EX_USAGE, "--auth-policy-mfa-required is for a new policy: give --auth-policy-project-id")
    if mfa and not high_assurance:
        raise Failed(os.EX_USAGE, "--auth-policy-mfa-required needs --high-assurance: only such policies can demand it")
    if not new:
        return None
    from mep.registration.policies import Policy

    return Policy(
        display_name=display_name,
        description=description,
        include_domains=_listed(allowed_domains),
        exclude_domains=_listed(excluded_domains),
        high_assurance=high_assurance,
        mfa=mfa,
        timeout=timeout,
    )


def make(policy: Policy, project_id: str | None) -> str:
    """The id of the new policy. Asks in which project it is to lie, unless that is given. Raises Failed."""
    from mep.cli.common import login_app_of
    from mep.profile.config import ManagerConfig
    from mep.registration.policies import Policies

    config = ManagerConfig()
    with exit_codes(), login_app_of(config) as app:
        policies = Policies(app, config)
        return policies.make(project_id or _chosen_project(policies), policy)


def _chosen_project(policies: Policies) -> str:
    """The id of one that is there, or of a new one. Raises RegistrationError, and Abort when nobody answers."""
    if projects := policies.projects():
        for number, project in enumerate(projects, 1):
            typer.echo(f"{number}. {project.name} ({project.id})")
        while True:
            said = typer.prompt("The number of the policy's project, or nothing for a new one", "", show_default=False)
            if not said:
                break
            if said.isascii() and said.isdigit() and 1 <= int(said) <= len(projects):
                return projects[int(said) - 1].id
    typer.echo("A new project:")
    while True:
        name = typer.prompt("Its name")
        email = typer.prompt("The address of who looks after it")
        admins = typer.prompt("Identities that administer it, by id, with commas", "", show_default=False)
        groups = typer.prompt("Groups that administer it, by id, with commas", "", show_default=False)
        said = typer.prompt("Make this project? (y; q to quit; else once more)", "", show_default=False).lower()
        if said == "q":
            raise typer.Abort
        if said == "y":
            return policies.make_project(name, email, _listed(admins) or (), _listed(groups) or ()).id


def _listed(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None
