"""The manager: takes start commands, maps identities to accounts, starts user endpoints as them, and reaps these.

A folder is a room: what runs in one process with its rights, or what several of them share. The `__init__` of
each room is its manual page: PROCESS says where it runs and as whom, CALLED BY who uses it, IMPORTS what it knows of
other rooms and of others' libraries, FILES what is in it. `tests/test_rooms.py` holds FILES and IMPORTS.

FILES
  cli/           what people type; `mep start` becomes the daemon                  who types it, mostly root
  daemon/        prepares the manager, puts it together, and runs it               root
  monitor/       decides, and looks after user endpoints                           root
  privileged/    fork, drop, exec: all that uses root's power                      root, until the child is the user
  worker/        the broker: commands in, heartbeats and failure notices out       worker_account, no rights
  exporter/      metrics on TCP, where an admin has turned that on                 one of systemd's, no rights
  registration/  login and two REST calls, in a process of its own                worker_account, no rights
  mapper/        identity set to account name                                      mapping_account, no rights
  reader/        the files of a profile become values                              root, parsers as nobody
  renderer/      user options meet the template                                    render_account, no rights
  accounts/      look-ups of the name service                                      name_service_account, no rights
  processes/     children: how they are started, waited for, talked to, reaped     both ends
  profile/       a profile once it is read: values                                 everywhere
  request/       the types that travel between the stages of a request: values     everywhere

In the order of a request: worker.consumer, worker.commands, monitor.stages.pipeline, .identification,
mapper.server, monitor.stages.name_service, .admission, .renderer, .plan, monitor.endpoints.table, .spawn,
privileged.launch.
ARCHITECTURE.md has the picture.
"""

__version__ = "0.2.0"
