"""Which models saw the data of a request: all that were not trained again without it, whatever made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from fedunlearn.exports.kept import Model
from fedunlearn.results.purged import purges


def saw(models: Mapping[Model, str | None], request: str) -> set[Model]:
    """The models that saw the data of a request.

    Those that a strategy made did, since what it was given to make them from had; unless they have the bits of one that
    was trained again without it.

    Args:
        models: all that there are or were, with their sha256.
        request: its id.
    """
    clean = {digest for model, digest in models.items() if without(model, request)}
    return {model for model, digest in models.items() if digest is None or digest not in clean}


def without(model: Model, request: str) -> bool:
    """Whether a model was trained again without a request's data, from the start."""
    again = model.role == "retrained" and request in (model.request, *model.earlier)
    return again or request in model.without


def asked(model: Model, request: str) -> bool:
    """Whether a model is a strategy's, which was asked to forget a request."""
    return model.role == "strategy" and request in (model.request, *model.earlier)


def digests(manifest: Mapping[str, Any], models: Iterable[Model]) -> dict[Model, str | None]:
    """Models that are there, with the sha256 of their files; None of one that diverged."""
    return {model: manifest["sha256"].get(place(model)) for model in models}


def gone(manifest: Mapping[str, Any]) -> dict[Model, str | None]:
    """Models that were purged, with the sha256 that their files had."""
    found = dict[Model, str | None]()
    for one in purges(manifest):
        for about in one["models"]:
            lists = {name: tuple(about.get(name, ())) for name in ("earlier", "without")}
            fields = {**about, **lists}
            digest = fields.pop("sha256")
            found[Model(**fields)] = digest
    return found


def described(model: Model, digest: str | None) -> dict[str, Any]:
    """What the manifest says of a model that was purged; `gone` reads it."""
    return {**asdict(model), "earlier": list(model.earlier), "without": list(model.without), "sha256": digest}


def place(model: Model) -> str:
    """The file of a model."""
    return f"weights/{model.name}.safetensors"
