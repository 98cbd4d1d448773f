"""`EndpointUnwanted`: the service does not take this endpoint any more. Raised by whoever asks it, ends the manager."""

from __future__ import annotations


class EndpointUnwanted(Exception):
    """The service refuses the endpoint for good. `exit_code` is one of os.EX_*; the text has the remedy."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(exit_code, text)
        self.exit_code = exit_code
        self.text = text

    def __str__(self) -> str:
        return self.text
