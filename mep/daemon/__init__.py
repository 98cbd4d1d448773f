"""What `mep start` becomes: puts the manager together and runs it.

PROCESS
  The manager, root. `failed`, `helper_account`, `known_names`, `trial` also in commands.

CALLED BY
  cli: `run.start` executes `main`; others use what finds and tries things.

IMPORTS
  accounts, monitor, monitor.stages, privileged, processes, profile, profile.sections, reader, registration, request;
  setproctitle, wire

FILES
  main.py            the order of a start: profile, lock, registration, log, manager
  composition.py     puts the manager together: the only place that knows the monitor and its neighbours
  registering.py     has the endpoint registered by a process of its own
  trial.py           tries what a profile starts
  known_names.py     names in `accounts` that the name service does not know
  helper_account.py  the account that helpers run as, looked up once
  logs.py            where the log goes
  failed.py          how a program fails: a text, and an exit code
"""
