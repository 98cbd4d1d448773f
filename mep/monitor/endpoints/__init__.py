"""User endpoints that run: started, adopted, heard of, stopped, and on record for the next manager.

PROCESS
  The manager, as root. `spawn` has the child forked; what happens in it is `privileged`.

CALLED BY
  monitor.stages.pipeline launches and refreshes; monitor.manager adopts, stops and releases. cli.unmanaged counts and
  ends those without a manager.

IMPORTS
  monitor, monitor.containment, privileged, processes, profile, request

FILES
  table.py           the table: launch, adopt, end; carries out what `lifecycle` says
  lifecycle.py       states and events, every pair explicit. Pure
  spawn.py           from a plan to a program that runs: folder, descriptors, fork, gate, exec
  launcher.py        one launch: spawned, held until it is contained and on record, or ended again
  user_endpoint.py   `UserEndpoint` in memory, and `ExitReport`, how it ended
  record.py          state.json, by which the next manager finds it
  kept.py            what outlives a crash of the host, on disk
  run_folder.py      its folder under /run, and the pipes in it
  listener.py        who is told what happens: between the table and the rest of the monitor
  timers.py          events that come with time
  termination.py     ends processes with all that they have started
  exits.py           how one has ended, as far as can be known
  endpoint_pipes.py  words, audit records and the end of a user endpoint
  credentials.py     the file of fresh credentials, sealed; who seals them
"""
