from __future__ import annotations

from tests.mep.profile import reference


def test_the_document_has_the_table_of_the_keys() -> None:
    assert reference.documented() == reference.table(), "renew it: python -m tests.mep.profile.reference"
