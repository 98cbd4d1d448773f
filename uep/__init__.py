"""The user endpoint: runs one user's tasks, as that user.

`cli`          the program `mep-uep NAME`; exit codes
`handover`     what the manager says on descriptor 0
`credentials`  where to publish and consume, refreshed by the manager while we run
`config`       the rendered YAML configuration
`endpoint`     the loop: check in, take tasks, send results, heartbeat, stop when idle
`idle`         the rules by which an endpoint stops by itself
`results`      results on disk until the broker has confirmed them
`grouped`      work on a disk, in groups and beside the loop
`intake`       tasks from the broker to the engine
`link`         the channels of one session with the broker
`outbox`       sends results, now or when the broker is back
`tenancy`      one endpoint at a time in one directory
`journal`      which tasks were accepted and have no result yet
`answers`      error results made by the endpoint itself
`audit`        records of a high-assurance endpoint
`pulse`        heartbeats, and the process title
`report`       their content, and the notice of a failed start
`notice`       the last word of an endpoint that cannot even begin
`worker`       runs one task; imported by whatever process does the work
`deferred`     imports of big packages in parts
`engines`      threads, processes, Parsl

Of our packages only `wire` is imported here. Nothing heavy (the SDK, Parsl) is imported before the first heartbeat.
"""
