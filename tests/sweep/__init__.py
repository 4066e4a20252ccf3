"""Tests of `fedunlearn.sweep`."""
