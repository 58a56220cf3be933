"""Names of persons are found by a plug-in, since no pattern finds them; without one, they are not.

`[gateway] names = "package.module:callable"`, or one entry point of the group `checkrein.names`. It
is called with a text and gives the places of the names in it: pairs of first letter and the one
after the last. It runs on the way of every call: if it raises, the call is refused.
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from checkrein.gateway.settings import SettingsError
from checkrein.policy.redact import Names

GROUP = "checkrein.names"


def load_names(named: str) -> Names | None:
    """Raises SettingsError."""
    try:
        if named:
            module, _, name = named.partition(":")
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        else:
            installed = list(entry_points(group=GROUP))
            if len(installed) > 1:
                raise ImportError(f"{len(installed)} are installed: name the one to use")
            found = installed[0].load() if installed else None
    except Exception as error:
        raise SettingsError(f"gateway.names: {named or GROUP}: {error}") from error
    if found is not None and not callable(found):
        raise SettingsError(f"gateway.names: {named or GROUP} cannot be called")
    return found  # type: ignore[no-any-return] # whatever it gives is checked where it is used
