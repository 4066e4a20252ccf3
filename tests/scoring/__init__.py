"""Tests of `fedunlearn.scoring`."""
