"""How people talk to it: the only place for typer, rich and prompt_toolkit."""
