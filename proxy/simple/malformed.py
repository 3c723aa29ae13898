"""What a body is that cannot be believed."""


class Malformed(ValueError):
    """A body that is not the page it should be; ``str()`` says what is wrong with it."""
