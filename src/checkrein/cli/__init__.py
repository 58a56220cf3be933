"""The terminal."""


def main() -> None:
    """Entry point of `checkrein`."""
