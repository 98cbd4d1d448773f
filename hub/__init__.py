"""A Globus Compute web service for one site: for demos, tests, and sites without internet.

It speaks the REST calls that the public client and the manager make, keeps functions, endpoints, tasks and results in
a database, and moves tasks and results through RabbitMQ. One process, one asyncio loop, plus the threads of the store.

`cli`, `server`       start and stop
`setup/`              RabbitMQ, account, files and units of a new hub
`systemd`             sockets that systemd holds, and readiness
`config`, `clients`   hub.yaml; who a client credential or a person stands for
`credentials`         the end of what came of an old secret
`callers`, `sessions` finds them by id; who is logged in at the hub's pages
`login/`              logging in with a browser at the site's provider
`store/`              the database: tables, reads, writes in group commits
`forwarder`           on a host without the hub: the port that clients ask, and TLS to the hub
`app`, `web`          all parts put together; what every REST call shares
`connections`         how long a request may take to arrive, and who may have how many connections
`limits`              how many bytes a request may have, and how many requests a client
`guesses`             how often a client's secret may be guessed at
`routes/`             the REST calls
`page/`               the page for users
`tokens`, `scopes`, `consents`   bearer tokens, for whose services they are, and what stood in brackets
`amqp/`               the connection to RabbitMQ, its names, and what its accounts may do
`sweeper`             forgets what is over
`endpoints`, `registration`   managers and user endpoints as rows of the store; how managers come and go
`submission`, `commands`, `outcomes`, `heartbeats`   the way of a task: in, start its endpoint, out, and who is alive
`projects`, `policies`   projects and authentication policies, and who satisfies one
`task_states`         what a task that has not ended waits for
`batches`             submissions in the form of older clients
`stopping`            the end of a user endpoint, as its user wants it
`failed_starts`, `shared_lock`   the failure of what waits for a user endpoint that could not start or has died
"""
