"""Children of ours: how they are started, waited for, recognised and reaped, without ever waiting in an event loop.

PROCESS
  Whichever starts the child: the manager, `daemon.main` and `daemon.anew`, as root; a `mep` command. What is said
  between two processes (`message`, `channel`, the protocols): both.

CALLED BY
  monitor, daemon, reader, cli; what is said: worker, mapper, accounts, renderer, too.

IMPORTS
  privileged, request; identity

FILES
  without_libraries.py      keeps libraries of C out of a process
  time_limit.py             waits with a time limit
  supervised.py             a child that runs as another account: started by the one launch, reaped at its end
  helper.py                 a program of ours that runs so, with a socket
  bounded_output.py         what a child writes into a pipe, up to a limit
  forked.py                 work on files in a forked child with our rights, when a disk may hang
  report.py                 the wait for a child's report: at the gate, executed, failed
  reaping.py                reaps children by their pidfds
  pidfd.py                  signals and ends by pidfd
  process.py                one process and no other: pid and start time
  sealed_file.py            a file in memory that nobody can change: what a program reads on descriptor 0
  printable.py              text of other processes, for logs and people
  message.py                one message between the monitor and a process of its own, and files with it
  channel.py                messages in an event loop
  answering.py              a helper that answers questions: what it owes
  executed.py               work for a fresh program with our rights, which has nothing of our memory
  replaceable.py            a helper of which there is one at a time, started anew when it is lost
  mapper_protocol.py        what the monitor and the mapper say to each other
  named_sockets.py          sockets with a name in a folder
  control_protocol.py       what is said on the one for requests that act
  status_protocol.py        what is said on the one for how a manager is
  worker_protocol.py        what the monitor and the worker say to each other
  render_protocol.py        what the monitor and the render server say to each other, and the limits of both
  name_service_protocol.py  what the monitor and the name service helper say to each other
"""
