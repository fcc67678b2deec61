"""The one exception that stands for a user's own mistake."""


class UserError(ValueError):
    """A mistake the user can fix; its text says what, where, got, expected and the command that fixes it.

    `stages.lib.core.stage.run` prints it as one sentence and exits with status 1. Anything else that is
    raised is a defect of ours and keeps its traceback.
    """
