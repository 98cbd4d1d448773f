"""Private parts for demos, tests and benchmarks; not installed.

`broker`  a RabbitMQ node of one's own, in one folder, on loopback only
`hub`     a hub for given users, on that broker
`hanging` a folder in which whoever looks waits for ever
"""
