"""Tests of `fedunlearn.tuning`."""
