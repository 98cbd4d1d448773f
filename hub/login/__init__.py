"""Logging in with a browser: the hub asks a site's OpenID Connect provider who a person is.

`settings`    `login` of hub.yaml
`provider`    what is asked of the provider, and how its answers are proven
`attempt`     a login that has begun: what the browser keeps of it
`claims`      from what the provider says to identity records
"""
