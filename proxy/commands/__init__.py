"""The commands of ``pypiproxy``, a module each."""
