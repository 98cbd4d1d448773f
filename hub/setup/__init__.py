"""`mep-hub setup`: from a RabbitMQ as its package makes it to a hub that systemd runs. What is right stays as it is.

`steps`      what was found and done, a line each
`files`      files that are ours until an admin edits them
`rabbitmq`   RabbitMQ: its configuration, the hub's user and virtual host, no `guest`; the lab's private brokers, too
`tls`        certificate and key for other hosts: RabbitMQ's and the hub's copies, and what both are told
`host`       the order of all steps on the host of the hub
"""
