"""Tests; they mirror the modules, and `test_contract` is their heart."""
