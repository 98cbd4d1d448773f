"""Makes the endpoint known to the service: login or client credentials, two REST calls. And what commands ask.

PROCESS
  A short one, forked by daemon.main or daemon.anew: `worker_account`, without rights; with a stored login, which is
  root's, root. `answer` and `errors` also in these two. Commands that ask the
  service (`mep login`, `whoami`, `check`, `configure`, `delete`, `stop --remote`): whoever types them.

CALLED BY
  cli, daemon.

IMPORTS
  profile; globus_sdk, packaging, wire

FILES
  registration.py  the call
  answer.py        what the service answers: the endpoint's id, and its queues
  login.py         with which login we speak to the service, and where it is
  errors.py        why the service does not take us, with the remedy
  remote.py        endpoints at the service: their state, their end
  policies.py      makes authentication policies, and the projects that hold them
  version.py       asks the service for its version: whether it serves endpoints like ours
"""
