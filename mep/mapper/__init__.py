"""From a Globus identity set to the name of an account and the rule that says so: runs the package `identity`.

PROCESS
  `server`: a program of its own, run as `mapping_account`: no rights, no capability, not dumpable, no network, no
  process of its own, one socket. `mapping`: in that program; and in `mep` commands.

CALLED BY
  monitor.stages.identification starts the program, asks it, and checks each answer as a stranger's. cli.dry_run.

IMPORTS
  privileged, processes, request; identity

FILES
  mapping.py  `IdentityMapper`: documents, identity set and requester become a decision
  server.py   the program: requests on descriptor 0, answers, and which mapping program is to be run
"""
