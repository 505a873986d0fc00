"""The address of a server that speaks OpenAI's protocol, as a setting."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def checked(address: str) -> str:
    """Raises ValueError for anything but such an address without a key in it."""
    if address:
        if not re.fullmatch(r"https?://[^\s@/?#]+(/[^\s@?#]*)?", address):
            raise ValueError("write it like http://localhost:11434/v1, without a key")
        _ = urlsplit(address).port  # raises
    return address


Address = Annotated[str, AfterValidator(checked)]
