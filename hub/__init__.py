"""A Globus Compute web service for one site: for demos, tests, and sites without internet.

It speaks the REST calls that the public client and the manager make, keeps functions, endpoints, tasks and results in
SQLite, and moves tasks and results through RabbitMQ. One process, one asyncio loop, plus one thread that commits.

`cli`, `server`       start and stop
`config`, `clients`   hub.yaml; who a client credential stands for
`store`               SQLite: reads on the loop, writes in group commits
`app`, `web`, `routes_*`  the REST calls
`tokens`              bearer tokens
`topology`, `rights`, `passwords`   AMQP names; what each AMQP account may do; its passwords
`broker`              the connection to RabbitMQ
`submission`, `commands`, `outcomes`, `heartbeats`   the way of a task: in, start its endpoint, out, and who is alive
"""
