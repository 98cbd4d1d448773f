"""`ManagerConfig`: config.yaml once it is read. `reader.config_reader` reads it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from mep.profile.account_policy import AccountPolicy
from mep.profile.limits import Limits
from mep.profile.resources import Resources


@dataclass(frozen=True)
class PamConfig:
    """The key `pam`: whether a user endpoint runs in a PAM session, and which file in /etc/pam.d has the rules."""

    enable: bool = False
    service_name: str = "globus-compute-endpoint"


@dataclass(frozen=True)
class ManagerConfig:
    """The keys of config.yaml, with the public package's names, meanings and defaults where it has them.

    heartbeat_period, mu_child_ep_grace_period_s, start_timeout: seconds.
    uep_command: program and first arguments of a user endpoint; its name is added as the last argument.
    client_credentials_path: a file with `client_id` and `client_secret`, for registering without a login.
    start_timeout: how long a user endpoint may take from its start to its first heartbeat.
    on_stop: whether a manager that is stopped ends its user endpoints ("end"), or leaves them to the next one ("keep").
    """

    display_name: str | None = None
    email: str | None = None
    public: bool = False
    high_assurance: bool = False
    allowed_functions: tuple[str, ...] | None = None
    authentication_policy: str | None = None
    subscription_id: str | None = None
    admins: tuple[str, ...] | None = None
    amqp_port: int | None = None
    heartbeat_period: float = 30.0
    environment: str | None = None
    local_compute_services: bool = False
    debug: bool = False
    user_config_template_path: Path | None = None
    user_config_schema_path: Path | None = None
    identity_mapping_config_path: Path | None = None
    audit_log_path: Path | None = None
    pam: PamConfig = field(default_factory=PamConfig)
    mu_child_ep_grace_period_s: float = 30.0
    accounts: AccountPolicy = field(default_factory=AccountPolicy)
    limits: Limits = field(default_factory=Limits)
    resources: Resources = field(default_factory=Resources)
    uep_command: tuple[str, ...] = (str(Path(sys.executable).parent / "mep-uep"),)
    client_credentials_path: Path | None = None
    render_account: str = "nobody"
    start_timeout: float = 60.0
    on_stop: str = "end"
