"""Private parts for demos, tests and benchmarks; not installed.

`broker`  a RabbitMQ node of one's own, in one folder, on loopback only
`hub`     a hub for given users, on that broker
`browser` a real browser, without a window
`provider` an OpenID Connect provider, at which users log in
`directory` a directory of accounts (slapd, SSSD), for a box
`clients` programs on top of the SDK, each with another version of it
`hanging` a folder in which whoever looks waits for ever
"""
