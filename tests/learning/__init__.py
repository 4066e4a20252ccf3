"""Tests of `fedunlearn.learning`."""
