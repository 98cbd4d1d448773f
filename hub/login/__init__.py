"""Logging in with a browser: the hub asks a site's OpenID Connect provider who a person is, and is to the public client
what Globus Auth is: a page that asks for consent, and a code to paste.

    client: an address -> browser -> provider: who it is -> hub: consent, a code -> client: code for tokens

`settings`    `login` of hub.yaml
`provider`    what is asked of the provider, and how its answers are proven
`attempt`     a login that has begun: what the browser keeps of it
`claims`      from what the provider says to identity records
`grants`      codes, refresh tokens, and logins that end
`apps`        what a program asks for at the beginning
`signing`     our own word to the public client, which it verifies
`pages`       what people see
"""
