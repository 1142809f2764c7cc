"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """What was given, what is allowed, what to do: one sentence, printed without a traceback by the entry points."""
