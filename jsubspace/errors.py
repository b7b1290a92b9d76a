"""The one exception for mistakes a user can mend."""


class UsageError(ValueError):
    """Something about the call, the config or the files is not as it must be.

    Its message is complete: what was given, what was expected, what to do. Programs print it alone, without
    a stack trace, and exit with code 2.
    """


class TrainingDiverged(ArithmeticError):
    """A loss is not finite. The message names the step."""
