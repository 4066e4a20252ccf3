"""Tests of `fedunlearn.api`."""
