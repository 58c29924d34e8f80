"""What each command does, in order: no terminal, usable from Python."""
