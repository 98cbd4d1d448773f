"""The manager's side of the broker: start commands in, heartbeats and failure notices out.

PROCESS
  The manager, as root, today; all that it reads was written by the service. To be a process of the account mep.

CALLED BY
  cli.composition makes it; monitor.manager starts and closes it; monitor.stages.pipeline sends notices;
  cli.checks probes.

IMPORTS
  request; wire

FILES
  worker.py      the sessions with the broker, made anew when lost
  consumer.py    start commands: one task for each, acknowledged when it is finished
  commands.py    bytes to `StartEndpoint`, every field checked
  heartbeats.py  tells the service that the manager is there
  notices.py     tells the service that a start failed
  probe.py       for `mep check`: would the broker have us?
  event_loop.py  the loop: host names without a lasting thread
"""
