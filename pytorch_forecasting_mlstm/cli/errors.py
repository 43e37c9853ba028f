"""The one exception that the command line shows instead of a traceback."""


class UserError(Exception):
    """What is wrong with the input, where, and how to mend it, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # one line, whatever a file name holds
