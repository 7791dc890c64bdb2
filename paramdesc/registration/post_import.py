"""Runs files of `paramdesc.integrations` when the library that they support is imported.

They are named by strings: nothing here imports an integration, and nothing imports the library.
"""

from __future__ import annotations

from functools import cache

from wrapt import register_post_import_hook

__all__ = ["notice_other_libraries"]

HOOKS = {
    "peft.tuners.tuners_utils": "paramdesc.integrations.peft:refuse_lost_merges",
}
"""What to call with each module, once it has been imported."""


@cache
def notice_other_libraries() -> None:
    """From the first parametrized module on, call each hook after the import of its module."""
    for module, hook in HOOKS.items():
        register_post_import_hook(hook, module)
