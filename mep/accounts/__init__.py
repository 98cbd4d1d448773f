"""Look-ups of the name service (files, LDAP, SSSD), which may hang.

PROCESS
  `server`: a program of its own, run as `name_service_account`: no rights, no capability, not dumpable, one
  socket.
  `look_up`: in that program; before the manager is executed and in daemon.anew; and in `mep` commands, which have
  nothing else to do.

CALLED BY
  monitor.stages.name_service starts the program, asks it, and checks each answer as a stranger's. daemon; cli.dry_run.

IMPORTS
  privileged, processes, request

FILES
  look_up.py  asks, and waits for the answer
  shells.py   is this a login shell? /etc/shells, and whether the program can be executed
  server.py   the program: questions on descriptor 0, threads, answers in the order in which they are there
"""
