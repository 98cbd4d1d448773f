"""Children of ours: how they are started, waited for, recognised and reaped, without ever waiting in an event loop.

PROCESS
  Whichever starts the child: the manager, as root; a `mep` command.

CALLED BY
  monitor, cli.

IMPORTS
  privileged, request

FILES
  supervised.py  a module of ours as a process of another account, with a socket
  forked.py      work on files in a forked child with our rights, when a disk may hang
  report.py      the wait for a child's report: at the gate, executed, failed
  reaping.py     reaps children by their pidfds
  process.py     one process and no other: pid and start time
"""
