"""What holds a user endpoint and all that it starts together: a scope of systemd in a slice with limits.

PROCESS
  The manager, as root.

CALLED BY
  monitor.endpoints.table puts a held child into its scope, and kills; monitor.manager and cli.checks probe what holds.

IMPORTS
  privileged, processes, profile.sections

FILES
  containment.py   contain, kill, stop, probe; with systemd and without
  systemd.py       systemd over D-Bus: units
  dbus.py          messages of D-Bus as bytes
  cgroups.py       the limits as the kernel has them
  limits.py        the limits of a profile: in words, for processes, compared with the kernel's
  limits_met.py    which limits a user endpoint has met, as the kernel counts
  process_tree.py  kills what belongs together where there is no scope
  user_services.py whether tasks can leave their scope, into a systemd of their user's
  unit_names.py    names of units, escaped
"""
