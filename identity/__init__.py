"""Maps Globus identities to local accounts by the site's mapping documents. The answer decides who becomes whom.

    mapper = identity.load("/etc/mep/mapping.json")
    decision = await mapper.amap(identity_set, requester=requester_id)
    if decision.account is None:
        log(decision.refusal)

`load` and `parse` read documents of the types `expression_identity_mapping#1.0.0` and
`external_identity_mapping#1.0.0`, and raise `DocumentError`. `Mapper.amap` returns a `Decision`, and raises
`MapperError` when a mapping program fails. The caller still looks the account up and applies its own uid limits.

`mapper`          the decision over all documents and identities
`documents`       JSON (`jsontext`) to typed documents, and what is wrong with them
`lookup`          which mappings of a document are worth trying on an identity
`expression`      one mapping, one identity: `template` for texts with tokens, `pattern` for matches
`pattern`         parsed by `pattern_syntax`, decided by `nfa`; `tails` tells `lookup` how matching values end
`external`        mapping programs and their answers; `program` runs them under limits
`identities`      the identity set: checks, limits, status
`account_name`    what may be the name of an account

Standard library only; imports nothing of the project.
"""

from identity.documents import Hint, Rule
from identity.identities import PassedOver
from identity.jsontext import DocumentError
from identity.mapper import POSIX_CONNECTOR, ZERO_UUID, Decision, Found, Mapper, load, parse
from identity.program import MapperError

__all__ = [
    "POSIX_CONNECTOR",
    "ZERO_UUID",
    "Decision",
    "DocumentError",
    "Found",
    "Hint",
    "Mapper",
    "MapperError",
    "PassedOver",
    "Rule",
    "load",
    "parse",
]
