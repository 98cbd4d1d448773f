"""What people type. Thin: each command calls what the running manager calls, and takes no decision of its own.

PROCESS
  One for each command, with the rights of whoever types it; most commands need root. `mep start` becomes the manager.

CALLED BY
  The program `mep`, which enters at `main.main`.

IMPORTS
  accounts, mapper, monitor, monitor.containment, monitor.endpoints, monitor.stages, privileged, processes, profile,
  profile.sections, reader, registration, renderer, request, worker; daemon, globus_sdk, identity,
  setproctitle, typer, wire

FILES
  main.py         puts the groups of commands together; --config-dir; version
  run.py          start, reload, stop, list
  inspect.py      the commands that only ask: status, check, map, explain, render
  login.py        login, logout, whoami
  configure.py    configure; new_profile.py does it
  common.py       what all share: paths, the profile that is meant, how a command fails
  composition.py  puts the manager together: the only place that knows the monitor and its neighbours
  new_profile.py  makes a profile: a folder of commented files
  checks.py       tries all that could fail later
  dry_run.py      stages of a request without a request
  known_names.py  names in `accounts` that the name service does not know
  slips.py        what is legal in a profile but hardly meant
  home_probe.py   can an account write in its home?
  helper_account.py  the accounts that helpers run as, looked up once
  unmanaged.py    user endpoints without a manager: how many, and their end
  logs.py         where the log goes
"""
