"""The stages of a request, from a decoded command to a plan for its launch, and their order.

PROCESS
  The manager, as root. Nothing here waits for a disk, the name service or a program: each is asked in its own process.

CALLED BY
  monitor.worker_process calls `pipeline` for each command; monitor.endpoints tells it what happens afterwards. daemon
  starts helpers; cli.dry_run calls single stages.

IMPORTS
  monitor, monitor.endpoints, privileged, processes, profile, profile.sections, request; identity

FILES
  pipeline.py           the order of the stages
  decisions.py          puts decisions on record: the one place where a refusal is logged, audited and told
  requester_lines.py    how many lines of the trail one requester may have in full
  audit_budget.py       how much of the trail the tasks of one account may fill
  endpoint_events.py    what follows when a user endpoint starts, works or ends: audit, notices, revivals
  untold.py             answers that could not be told: told later
  orders.py             what admins have ordered: who is drained, banned, killed
  orders_file.py        what of it stays, on disk
  rights.py             ends what runs, and may not any more
  fair_queue.py         places for work that takes time, in turn
  keyed_lock.py         one request at a time for each user endpoint
  identification.py     identity set to name: asks the program `mapper.server`
  mapper_client.py      one such program: its process, and the requests that it owes an answer
  mapping_programs.py   runs mapping programs of the site, as ordinary accounts
  shared_runs.py        one run for all who ask the same at a time
  name_service.py       name to account: asks the program `accounts.server`
  admission.py          may this account have a user endpoint?
  breaker.py            holds back who keeps dying
  quota.py              how many, how often
  renderer.py           options to configuration: asks the program `renderer.server`
  plan.py               what to launch: argv, environment, hand-over. Pure
"""
