"""What people type. Thin: each command calls what the running manager calls, and takes no decision of its own.

PROCESS
  One for each command, with the rights of whoever types it; most commands need root. `mep start` executes the
  manager, `daemon.main`, in its place.

CALLED BY
  The program `mep`, which enters at `main.main`.

IMPORTS
  accounts, daemon, mapper, monitor, monitor.containment, monitor.endpoints, monitor.stages, privileged, processes,
  profile, reader, registration, renderer, request, worker; globus_sdk, identity, typer, wire

FILES
  main.py         puts the groups of commands together; --config-dir; version
  run.py          start, reload, stop, list
  inspect.py      the commands that only ask: status, check, map, explain, render
  asking.py       asks a running manager: how it is, or to reload
  login.py        login, logout, whoami
  configure.py    configure; new_profile.py does it
  common.py       what all share: paths, the profile that is meant, how a command fails
  new_profile.py  makes a profile: a folder of commented files
  checks.py       tries all that could fail later
  dry_run.py      stages of a request without a request
  slips.py        what is legal in a profile but hardly meant
  home_probe.py   can an account write in its home?
  unmanaged.py    user endpoints without a manager: how many, and their end
"""
