"""Maps Globus identities to local accounts by the site's mapping documents. The answer decides who becomes whom.

    mapper = identity.mapper.Mapper.parse(text, "mapping.json")
    decision = await mapper.amap(identity_set, requester=requester_id, run=run)
    if decision.account is None:
        log(decision.refusal)

Documents are of the types `expression_identity_mapping#1.0.0` and `external_identity_mapping#1.0.0`. `Mapper.parse`
raises `jsontext.DocumentError`; `Mapper.amap` returns a `decision.Decision`, and raises `runner.MapperError` when a
mapping program fails. The caller reads files, runs programs (`run`), looks the account up, and applies its uid limits.

`mapper`           the decision over all documents and identities
`decision`         its type
`documents`        what documents are once they are read
`document_parser`  JSON (`jsontext`) to documents, and what is wrong with them
`lookup`           which mappings of a document are worth trying on an identity, by their `tails`
`expression`       one mapping, one identity: `template` for texts with tokens, `pattern` for matches
`pattern`          one match text: `pattern_syntax` reads it, `pattern_hints` finds what is not meant, `nfa` decides
`external`         mapping programs and their answers; `runner` is what runs them
`identities`       the identity set: checks, limits, status
`account_name`     what may be the name of an account
`printable`        foreign text in log lines

Standard library only, and nothing of it that touches files, processes or accounts; imports nothing of the project.
"""
