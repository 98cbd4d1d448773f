"""What comes from the broker and goes there.

`credentials`    where to consume and publish, refreshed by the manager
`channels`       the channels of one session with the broker
`inbox`          accepts tasks, and answers for each until its result is in the outbox
`dispatcher`     takes accepted tasks to the engine
`outbox`         keeps results until the broker has them
`courier`        sends the results of one session
`heartbeats`     signs of life, and the process title
`status_report`  what heartbeats say, and the notice of a failed start
`start_failure`  publishes that notice for an endpoint that cannot even begin
"""
