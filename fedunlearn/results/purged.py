"""What a run says of what was purged from it (`fedunlearn purge`): read from its manifest.

``manifest["purged"]`` is a list, one entry a purge: ``date``, ``requests`` (by id: ``site``, how many ``patients``
and ``images``), ``patients`` (how many they are in all, since two requests may name the same), ``kept`` (the remedy
whose models stay), ``models`` (those that went: all that `exports.kept` knows of them, and their sha256), ``places``
(by pattern of `contents`, how many files were ``removed`` and ``changed``) and ``outside`` (entries of the cache of
shadow models). ``manifest["asked"]`` has what every request was about before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedunlearn.core import InputError

RETRAINED = "retrained"


def purges(manifest: Mapping[str, Any], request: str | None = None) -> list[Mapping[str, Any]]:
    """All purges of a run, or those of a request, in their order."""
    found: list[Mapping[str, Any]] = list(manifest.get("purged", ()))
    return found if request is None else [one for one in found if request in one["requests"]]


def told(manifest: Mapping[str, Any]) -> list[str]:
    """For people, a sentence for every purge; none if there was none."""
    return [_told(one) for one in purges(manifest)]


def require_evidence(manifest: Mapping[str, Any], what: str) -> None:
    """Make sure that all that a run was scored by is still there.

    Args:
        manifest: of the run.
        what: what is to be done with it, as in "cannot be scored again".

    Raises:
        InputError: something was purged.
    """
    if found := purges(manifest):
        names = ", ".join(dict.fromkeys(name for one in found for name in one["requests"]))
        raise InputError(
            f"a purged run cannot be {what}: on {found[-1]['date']} what it needs was removed for {names}; expected a "
            "run that nothing was purged from. Its tables and its report stay as they are"
        )


def _told(one: Mapping[str, Any]) -> str:
    requests = one["requests"]
    if not one["models"] and not any(about["images"] for about in requests.values()):
        return f"Purged on {one['date']} for {', '.join(requests)}: all of it had gone with what was purged before."
    twice = sum(int(about["patients"]) for about in requests.values())  # all that an older purge tells
    patients = int(one.get("patients", twice))
    removed = sum(int(place["removed"]) for place in one["places"].values())
    changed = sum(int(place["changed"]) for place in one["places"].values())
    kept = (
        "Only models that were trained again without the data stay."
        if one["kept"] == RETRAINED
        else f"Models of {one['kept']}, the remedy in use, stay, though they were made from one that saw the data."
    )
    return (
        f"Purged on {one['date']} for {', '.join(requests)} ({_counted(patients, 'patient')}): "
        f"{_counted(len(one['models']), 'model')} and all else that showed the images, {_counted(removed, 'file')}; "
        f"rows and ids in {_counted(changed, 'file')}. {kept} What is shown here of several patients was computed "
        "before; nothing of it can be computed again."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
