"""Being told when a module has been imported, now or later.

A finder stands first in `sys.meta_path`. It finds nothing itself: for a watched name it asks the
others and adds a note to what they found. Any other import costs it one dictionary look-up.
"""

from __future__ import annotations

import sys

from checkrein.sdk.instruments.patches import warn_changed

TYPE_CHECKING = False  # `typing` is not imported at every program's start
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, TypeAlias

    Told: TypeAlias = Callable[[ModuleType], None]


class ImportWatch:
    """Calls `told` once for each watched module, in the thread that imported it, right after the
    module's own code ran. What `told` raises is warned about, not raised into the import."""

    def __init__(self) -> None:
        self._watched: dict[str, Told] = {}
        self._finding: set[str] = set()

    def watch(self, name: str, told: Told) -> None:
        """At once if the module is there already, else when it comes."""
        module = sys.modules.get(name)
        if module is not None:
            _tell(told, module)
            return
        self._watched[name] = told
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def forget(self) -> None:
        """Watches nothing any more."""
        self._watched.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._watched or name in self._finding:
            return None
        self._finding.add(name)
        try:
            spec = self._found_by_others(name, path, target)
        finally:
            self._finding.discard(name)
        if spec is not None and spec.loader is not None:
            self._note(name, spec.loader)
        return spec

    def _found_by_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                return spec
        return None

    def _note(self, name: str, loader: Any) -> None:
        """Shadows this one loader's `exec_module` for one call."""
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            run(module)
            told = self._watched.pop(name, None)
            if told is not None:
                _tell(told, module)

        try:
            loader.exec_module = exec_module
        except AttributeError as error:
            warn_changed(name, "its loader", error)


def _tell(told: Told, module: ModuleType) -> None:
    try:
        told(module)
    except Exception as error:
        warn_changed(module.__name__, "import", error)
