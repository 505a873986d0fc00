from .deeper import WORD


def greet() -> str:
    return WORD
