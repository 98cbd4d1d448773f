"""What `mep start` becomes: prepares a manager, executes it, and does for it what takes readers and clients.

PROCESS
  `main` and `anew`: short, root, end before a request or have seen none. `serve`: the manager, root for months.
  `choice`, `failed`, `helper_account`, `known_names`, `other_hosts`, `trial`, `rehearsal`, `endpoint_check` also in
  commands.

CALLED BY
  cli: `run.start` executes `main`, which executes `serve`, which has `anew` executed; others use what tries things.

IMPORTS
  accounts, monitor, monitor.stages, privileged, processes, profile, profile.sections, reader, registration,
  request; identity, wire

FILES
  main.py            the order of a start: profile, lock, registration, and the manager in its place
  serve.py           the manager: puts the monitor and its neighbours together, and runs it
  anew.py            does once more what the start has done: reads the profile or the mapping, registers
  handed.py          what these hand to each other
  choice.py          the edited profile, or the one that was accepted last
  other_hosts.py     hosts that share a home: which of them runs an endpoint
  registering.py     has the endpoint registered by a process of its own
  trial.py           tries what a profile starts
  rehearsal.py       a profile tried before it is in force
  endpoint_check.py  asks the user endpoint's program whether it takes a configuration
  known_names.py     names in `accounts` that the name service does not know
  helper_account.py  the accounts that helpers run as, looked up once
  logs.py            where the log goes
  failed.py          how a program fails: a text, and an exit code
"""
