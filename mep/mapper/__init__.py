"""From a Globus identity set to the name of an account and the rule that says so: runs the package `identity`.

PROCESS
  The manager, as root, today. To be a process of the account mep-map, without rights and without a network.

CALLED BY
  monitor.stages.pipeline, through the Protocol `Mapper` there; cli.dry_run.

IMPORTS
  profile, request; identity

FILES
  mapping.py  `IdentityMapper`: documents in force, requester, answer or refusal
"""
