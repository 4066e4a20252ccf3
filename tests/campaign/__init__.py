"""Tests of `fedunlearn.campaign`."""
