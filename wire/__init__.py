"""What the manager, the user endpoint and the hub say to each other, and how.

`messages`     the task, result and status messages (protocol v1: one version byte, then JSON)
`queues`       where to consume and publish, as it arrives from the service
`connection`   one AMQP connection on the running asyncio loop
`consumer`     deliveries from one queue, bounded in number and in bytes
`properties`   what strangers may put beside a message: what cannot be read costs the message only
`publisher`    messages to the broker, each confirmed
`reconnect`    stays connected; `backoff` is how long to wait before the next attempt
`errors`       what the broker or the network refused
`network_errors`   why another host could not be reached, and what to do
`pending`, `pika_errors`   parts of a connection: what waits for an answer; pika's errors in our words
`time_limit`   waits with a time limit
`listeners`    who listens on a port of this host, and who may
`function_code`  the parts of a task as the SDK packs them; the hash of a function
`failure_notice`   tells the service that a user endpoint could not start
`stop_request`   asks a user endpoint to stop
`redaction`    keeps passwords out of every text that people read
`nesting`      how deep values from strangers are
`printable`    makes text from strangers fit for logs and people

Nothing here knows who is talking. `mep`, `uep` and `hub` import this package; it imports none of them.
"""
