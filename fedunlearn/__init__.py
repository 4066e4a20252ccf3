"""Federated unlearning of medical images, simulated and scored against retraining."""

__version__ = "0.1.0"

# What programs and notebooks use, loaded when it is first asked for: `import fedunlearn` itself costs nothing.
_PLACES = {
    **dict.fromkeys(
        ("FedunlearnError", "InputError", "Interrupted", "RunError", "SiteError"), "fedunlearn.core"
    ),
    **dict.fromkeys(("Run", "load_run"), "fedunlearn.api.run"),
    "Scenario": "fedunlearn.api.scenario",
    "simulate": "fedunlearn.api.running",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    """What is asked for by name, from where it is; its type is in ``__init__.pyi``."""
    if name not in _PLACES:
        raise AttributeError(f"module 'fedunlearn' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
