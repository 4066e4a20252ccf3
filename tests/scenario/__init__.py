"""Tests of `fedunlearn.scenario`."""
