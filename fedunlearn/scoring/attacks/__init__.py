"""Attacks on membership: how well what a model answers betrays what it was trained on."""
