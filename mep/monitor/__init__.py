"""Decides about requests and looks after user endpoints: the manager's own part, and the one that stays root.

PROCESS
  The manager: root, with the five capabilities of its unit, one thread, one event loop. What may wait long, or handles
  what strangers wrote, is asked of other processes. Commands come from `worker`, decoded, and are checked again.
  `audit_program` is a program of its own, root.

CALLED BY
  daemon.serve makes a `Manager` with its neighbours and calls `serve`. `run_lock`, `stages`, `endpoints` and
  `containment` serve commands of `cli` too.

IMPORTS
  monitor.containment, monitor.endpoints, monitor.stages, privileged, processes, profile,
  profile.sections, request

FILES
  stages/              the stages of a request and their order
  endpoints/           user endpoints that run: start, life, end
  containment/         what holds them together: scopes, slices, limits
  manager.py           one run: the parts, signals, the end
  worker_process.py    the worker: its process, what it is told and says
  profile_in_force.py  the profile that requests are served by; reload
  reload_requests.py   who waits for what a reload comes to
  audit.py             the audit trail: what a line says
  audit_file.py        its file
  audit_writer.py      hands it over to the process that writes it
  audit_program.py     that process
  public_audit.py      a second file, in the public package's form
  background.py        work that nobody waits for at the moment
  status.py            the one line that says how the manager is doing
  status_socket.py     the socket on which commands ask how it is, and what they are told
  shown.py             what is told of user endpoints, who is held back, the last errors
  control_socket.py    the socket on which requests that act come: `mep reload`, and orders
  order_requests.py    carries out orders: kill, drain, ban
  mapping_file.py      the mapping file as it is looked at again and again
  last_run.py          how the last run ended, for `mep status`
  log_file.py          the log, which may be on a full disk
  notify.py            a word to systemd
  run_lock.py          one manager per endpoint and host
"""
