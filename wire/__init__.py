"""What the manager, the user endpoint and the hub say to each other, and how.

`messages`  the task, result and status messages (protocol v1: one version byte, then JSON)
`queues`    where to consume and publish, as it arrives from the service
`amqp`      one AMQP connection on the running asyncio loop
`consumer`  deliveries from one queue, bounded in number and in bytes
`backoff`   how long to wait before the next attempt to connect
`redaction` keeps passwords out of every text that people read

Nothing here knows who is talking. `mep`, `uep` and `hub` import this package; it imports none of them.
"""
