"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user can put right. The message is one line: what is wrong, and the way out."""
