"""Agents as anybody writes them: no line about Checkrein. They find their model where the
environment says, call what it asks for, and print what it says at the end."""
