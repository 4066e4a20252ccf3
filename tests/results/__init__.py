"""Tests of `fedunlearn.results`."""
