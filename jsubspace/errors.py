"""What a program may end with, other than its results; every message is complete."""


class UsageError(ValueError):
    """Something about the call, the config or the files is not as it must be.

    Its message is complete: what was given, what was expected, what to do. Programs print it alone, without
    a stack trace, and exit with code 2.
    """


class TrainingDiverged(ArithmeticError):
    """A loss is not finite. The message names the step."""


class Preempted(BaseException):
    """A signal asked the run to end before its time. Nothing is lost: the message says where it goes on.

    Like KeyboardInterrupt it may be raised anywhere, and is no Exception lest somebody takes it for an error.
    """
