"""Federated unlearning of medical images, simulated and scored against retraining."""

__version__ = "0.1.0"
