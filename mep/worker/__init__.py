"""The manager's side of the broker: start commands in, heartbeats and failure notices out.

PROCESS
  A program as `worker_account`, without rights; all that it reads was written by the service. The monitor starts a new
  one when it dies or hangs. `mep check` probes as who types it.

CALLED BY
  monitor.worker_process starts the program and checks what it says; cli.checks probes.

IMPORTS
  privileged, processes, request; cryptography, h11, wire

FILES
  program.py        the program: what the monitor tells it and is told
  worker.py         the sessions with the broker, made anew when lost
  consumer.py       start commands: one task for each, acknowledged when it is finished
  commands.py       bytes to `StartEndpoint`, every field checked
  sealing.py        seals credentials, and opens them
  heartbeats.py     tells the service that the manager is there
  instances.py      looks whether another instance of the endpoint takes its commands, too
  notices.py        tells the service that a start failed
  probe.py          would the broker have us, and who else takes our commands?
  api_server.py     takes the connections of those who ask how the manager is
  api.py            what they may ask, and the answers; `openapi.json` describes them
  events.py         what has been decided lately
  durations.py      how long starts take, step by step
  metrics.py        all of that for Prometheus
  figures.py        what user endpoints say of themselves
  resources.py      memory and processor time of user endpoints and of the manager's processes
  event_loop.py     the loop: host names without a lasting thread
"""
