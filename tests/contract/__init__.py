"""Tests of `fedunlearn.contract`."""
