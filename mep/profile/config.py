"""`ManagerConfig`: config.yaml once it is read, and the one table of its keys. `reader.config_reader` reads it.

A new key is a line here, with its default, what it takes, whether a reload takes it over, and its sentence in the
reference (docs/configuration.md, printed by `python -m tests.mep.profile.reference`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from mep.profile.keys import Takes, declared, key, section
from mep.profile.sections.accounts import AccountPolicy
from mep.profile.sections.limits import Limits
from mep.profile.sections.pam import PamConfig
from mep.profile.sections.resources import Resources


@dataclass(frozen=True)
class ManagerConfig:
    """The keys of config.yaml, with the public package's names, meanings and defaults where it has them."""

    identity_mapping_config_path: Path | None = key(
        None, Takes.PATH, "path of the mapping documents", reload=True, shown="mandatory"
    )
    display_name: str | None = key(None, Takes.DISPLAY_NAME, "the endpoint's name for people")
    email: str | None = key(None, Takes.TEXT, "whom people write to about the endpoint")
    public: bool = key(
        False, Takes.FLAG, "whether others can find the endpoint; who may use it is decided by the mapping"
    )
    accounts: AccountPolicy = section(AccountPolicy)
    limits: Limits = section(Limits)
    resources: Resources = section(Resources)
    require_scope: bool = key(
        True,
        Takes.FLAG,
        "with systemd: a user endpoint for which no scope can be had is not started. `false`: without `resources` it "
        "is, with a warning, and what it starts may outlive it",
        reload=True,
    )
    pam: PamConfig = section(PamConfig, enable=True)  # who writes the key wants it, as in the public package
    audit_log_path: Path | None = key(None, Takes.PATH, "the audit trail, see [operation.md](operation.md)")
    high_assurance: bool = key(False, Takes.FLAG, "nothing starts that cannot be audited; needs `audit_log_path`")
    public_audit_log_path: Path | None = key(
        None,
        Takes.PATH,
        "with `high_assurance`, a second file: what user endpoints say of tasks, in the form of the public package's "
        "`audit_log_path`",
    )
    client_credentials_path: Path | None = key(
        None, Takes.PATH, "a file with `client_id` and `client_secret`, mode 0600; else the login of `mep login`"
    )
    uep_command: tuple[str, ...] = key(
        (str(Path(sys.executable).parent / "mep-uep"),),
        Takes.COMMAND,
        "program and first arguments of a user endpoint; its name is added at the end",
        reload=True,
        shown="`mep-uep` beside `mep`",
    )
    start_timeout: float = key(
        60.0,
        Takes.PERIOD,
        "seconds that our user endpoint has to its first heartbeat before it is killed and its user told",
        reload=True,
    )
    heartbeat_period: float = key(30, Takes.PERIOD, "seconds between the manager's heartbeats", reload=True)
    mu_child_ep_grace_period_s: float = key(
        30.0,
        Takes.GRACE_PERIOD,
        "seconds that a command for a running user endpoint is remembered, to start it again",
        reload=True,
    )
    start_patience: float = key(
        300.0,
        Takes.PERIOD,
        "seconds that a start command may wait for its turn before it is refused; more than the longest start takes",
        reload=True,
    )
    umask: int | None = key(
        None,
        Takes.UMASK,
        'umask of user endpoints and their tasks, as text: `"027"` lets the group read what tasks write; what a PAM '
        "session sets (pam_umask) counts more",
        reload=True,
        shown="077",
    )
    on_stop: str = key(
        "end",
        Takes.ON_STOP,
        "`keep`: user endpoints outlive a stop of the manager, too, not only a restart",
        reload=True,
    )
    worker_account: str = key(
        "mep-worker", Takes.ACCOUNT, "the account of what talks to the broker, and registers the endpoint"
    )
    render_account: str = key(
        "mep-render",
        Takes.ACCOUNT,
        "the account under which templates are rendered; one of this host's own (not LDAP's) that nothing else uses, "
        "as the next two",
    )
    name_service_account: str = key("mep-accounts", Takes.ACCOUNT, "the account under which accounts are looked up")
    mapping_account: str = key(
        "mep-map", Takes.ACCOUNT, "the account of the mapper and of mapping programs without `run_as`"
    )
    status_group: str | None = key(
        None,
        Takes.TEXT,
        "a group whose members may ask how the manager and its user endpoints are, without being root: `mep status`, "
        "`mep ps`, see [api.md](api.md)",
        shown="root only",
    )
    allowed_functions: tuple[str, ...] | None = key(
        None,
        Takes.FUNCTIONS,
        "UUIDs of the only functions that may run, or all of them with the hash of their code, `UUID@sha256:HEX`: see "
        "[Pinned functions](#pinned-functions)",
        shown="all",
    )
    amqp_port: int | None = key(
        None,
        Takes.PORT,
        "port of the broker, for example 443; for the manager and for user endpoints. A key of this name in the "
        "template, as the public package has it, counts more for user endpoints; it is not needed",
        shown="the service's",
    )
    authentication_policy: str | None = key(None, Takes.UUID, "passed to the service")
    subscription_id: str | None = key(None, Takes.UUID, "passed to the service")
    admins: tuple[str, ...] | None = key(None, Takes.UUIDS, "passed to the service")
    unknown_options: str = key(
        "warn",
        Takes.UNKNOWN_OPTIONS,
        "what becomes of a start with an option that neither template nor schema takes: `refuse` it; `warn`: the user "
        "reads of it in the user endpoint's status; or `ignore`. Where it cannot be told which options a template "
        "takes (an `include` whose name is computed), nothing is refused",
        reload=True,
    )
    user_config_template_path: Path | None = key(
        None, Takes.PATH, "the template, when it is elsewhere", reload=True, shown="in the folder"
    )
    user_config_schema_path: Path | None = key(
        None, Takes.PATH, "the schema, when it is elsewhere", reload=True, shown="in the folder"
    )
    environment: str | None = key(None, Takes.TEXT, "another environment of Globus than production; for development")
    local_compute_services: bool = key(
        False, Takes.FLAG, "whether the service is the one at port 5000 of this host; for development"
    )
    debug: bool = key(False, Takes.FLAG, "whether details are logged that mostly developers need")
    log_format: str = key(
        "text",
        Takes.LOG_FORMAT,
        "of the manager's log, in its file and in the journal: `text`, or `json`: an object per line",
    )
    log_size: int = key(
        100 << 20,
        Takes.LOG_SIZE,
        "how large the manager's log may be before a new one begins, for example `20M`; logrotate may move it earlier",
        shown="100M",
    )
    log_keep: int = key(1, Takes.LOG_KEEP, "how many of the logs before are kept: `endpoint.log.old.1` and so on")


def reloaded(old: ManagerConfig, new: ManagerConfig) -> tuple[ManagerConfig, tuple[str, ...]]:
    """`old` with what a reload takes over from `new`, and the names of the keys whose change waits for a restart."""
    keys = declared(ManagerConfig)
    fresh = {name: getattr(new, name) for name, each in keys.items() if each.reload}
    changed = [name for name in keys if getattr(new, name) != getattr(old, name)]
    return replace(old, **fresh), tuple(name for name in changed if not keys[name].reload)
