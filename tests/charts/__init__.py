"""Tests of `fedunlearn.charts`."""
