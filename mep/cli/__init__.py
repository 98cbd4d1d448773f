"""What people type. Thin: each command calls what the running manager calls, and takes no decision of its own.

PROCESS
  One for each command, with the rights of whoever types it; most commands need root. `mep start` executes the
  manager, `daemon.main`, in its place.

CALLED BY
  The program `mep`, which enters at `main.main`.

IMPORTS
  accounts, daemon, mapper, monitor, monitor.containment, monitor.endpoints, monitor.stages, privileged, processes,
  profile, reader, registration, renderer, request, worker; globus_compute_sdk, globus_sdk, identity, typer, wire, yaml

FILES
  main.py         puts the groups of commands together; --config-dir; version
  run.py          start, restart, reload, stop, list
  boot.py         enable-on-boot, disable-on-boot; what systemd is asked
  watching.py     status, ps
  stories.py      logs, why
  story.py        finds what they tell
  inspect.py      the commands that ask what would be: check, map, explain, render
  tables.py       tables that fit the terminal
  log_files.py    reads root's logs, for people
  user_log.py     reads the log of a user endpoint, as its user
  as_account.py   runs a module of ours as a user, in their home
  orders.py       kill, drain, undrain, ban, unban
  times.py        times that people type: --until
  render_user_config.py  render-user-config
  asking.py       asks a running manager: how it is, to reload, to obey
  login.py        login, logout, whoami
  configure.py    configure, migrate-to-template-capable
  delete.py       delete
  functions.py    functions pin
  function_code.py  shows the code of a function, for that
  executed.py     python-exec, and what the public manager starts: commands that become another program
  common.py       what all share: paths, the profile that is meant, the login
  new_profile.py  makes a profile: a folder of commented files
  new_policy.py   makes the authentication policy that a new profile is to have
  old_profile.py  makes an old public profile, without a template, one with a template
  public_profile.py  what a profile of the public package still has of it, for `check`
  removal.py      removes a profile and what was kept of it
  checks.py       tries all that could fail later
  dry_run.py      stages of a request without a request
  slips.py        what is legal in a profile but hardly meant
  home_probe.py   can an account write in its home?
  unmanaged.py    user endpoints without a manager: how many, and their end
"""
