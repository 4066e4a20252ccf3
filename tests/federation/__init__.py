"""Tests of `fedunlearn.federation`."""
