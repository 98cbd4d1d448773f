"""User endpoints that run: started, adopted, heard of, stopped, and on record for the next manager.

PROCESS
  The manager, as root. `spawn` has the child forked; what happens in it is `privileged`.

CALLED BY
  monitor.requests.pipeline launches and refreshes; monitor.manager adopts, stops and releases. cli.unmanaged counts and
  ends those without a manager.

IMPORTS
  monitor.containment, privileged, processes, profile, request; cryptography

FILES
  table.py           the table: launch, adopt, end; carries out what `lifecycle` says
  lifecycle.py       states and events, every pair explicit. Pure
  spawn.py           from a plan to a program that runs: folder, descriptors, fork, gate, exec
  record.py          `Child`, and its folder under /run
  endpoint_pipes.py  words, audit records and the end of a user endpoint
  credentials.py     the file of fresh credentials, encrypted
"""
