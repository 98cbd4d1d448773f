"""What the hub knows of RabbitMQ.

`broker`      the connection
`topology`    the names of exchanges, queues, routing keys and accounts
`rights`      what an account may do
`passwords`   how an account logs in
"""
