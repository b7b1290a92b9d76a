"""The exceptions that a user may see. Every message is complete."""


class UsageError(ValueError):
    """A call, a setting or a file is not as it must be.

    The message says what was given, what was expected and what to do. Programs print the message alone, without a stack
    trace, and exit with code 2.
    """


class TrainingDiverged(ArithmeticError):
    """A loss is not finite. The message names the step."""


class Preempted(BaseException):
    """A signal asked the run to stop early. Nothing is lost: the message says where the run resumes.

    Like KeyboardInterrupt it may be raised anywhere. It is no Exception, so that ``except Exception`` does not treat it as
    an error.
    """
