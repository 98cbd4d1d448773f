"""`PamConfig`: the key `pam` of config.yaml. `monitor.stages.plan` puts it into the launch."""

from __future__ import annotations

from dataclasses import dataclass

from mep.profile.keys import Takes, key


@dataclass(frozen=True)
class PamConfig:
    """Whether a user endpoint runs in a PAM session, and by which rules."""

    enable: bool = key(
        False,
        Takes.FLAG,
        "whether each user endpoint runs in a PAM session; true where `pam` is there without it",
    )
    service_name: str = key(
        "globus-compute-endpoint", Takes.PAM_SERVICE, "the file in `/etc/pam.d` with the rules for it"
    )
