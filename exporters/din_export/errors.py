"""What stops an export. The message is for the person who ran it: the thing, what it is, what was expected and why."""


class ExportError(Exception):
    """The model is refused: exit code 1."""


class GoldenError(ExportError):
    """The scores are not the framework's: exit code 3."""
