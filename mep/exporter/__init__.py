"""The metrics of a manager on TCP, for Prometheus, which cannot ask on a Unix socket; off unless an admin turns it on.

PROCESS
  A program that systemd starts with its socket (`mep-metrics@NAME.socket`), as an account of its own that is gone with
  it: no rights but to ask the manager's worker as a member of `status_group`.

CALLED BY
  systemd, by mep-metrics@.service.

IMPORTS
  processes

FILES
  server.py   the program: `/metrics` is asked of the worker, everything else is refused
"""
